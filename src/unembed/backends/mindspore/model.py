"""A model folder opened in MindSpore: its network and its tokenizer, to write texts, to be trained, to be saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn
from tokenizers import Tokenizer

from unembed.backends.mindspore import weights
from unembed.backends.mindspore.encoder_decoder import END, EncoderDecoder
from unembed.backends.mindspore.generation import Writer
from unembed.backends.mindspore.prefix_decoder import PrefixDecoder
from unembed.backends.mindspore.weights import Folder
from unembed.errors import CheckpointError, InputError


class Model:
    """A hypothesizer or a corrector. `write` is compiled once for each size of batch, number of beams and length."""

    def __init__(self, folder: Folder, net: nn.Cell, tokenizer: Tokenizer) -> None:
        self.folder, self.net, self.tokenizer = folder, net, tokenizer
        self.end = net.end if isinstance(net, PrefixDecoder) else END
        self._writers: dict[tuple[int, int], Writer] = {}

    @classmethod
    def load(cls, path: Path, dropout: float | None = None) -> Model:
        """dropout: of a T5 whose config.json does not say, in training. Raises CheckpointError: see
        `unembed.backends.mindspore.load`."""
        folder = weights.read(path)
        if dropout is not None:
            folder.config["dropout_rate"] = dropout
        net = PrefixDecoder(folder) if folder.family == "prefix" else EncoderDecoder(folder)
        fill(net, folder)
        net.set_train(False)
        return cls(folder, net, _tokenizer(folder))

    def save(self, path: str | Path) -> None:
        """Write the folder as it was read, with the network as it is now: unembed, vec2text and nanoV2T load it.
        Raises StorageError."""
        kept = {name: tensor for name, tensor in self.folder.tensors.items() if weights.beside(name, self.folder)}
        weights.write(self.folder, kept | {name: array(part) for name, part in named(self.net).items()}, Path(path))

    @property
    def label_tokens(self) -> int:
        """Tokens of a text with the end of text, as training has them."""
        return self.folder.length + (self.folder.family != "vec2text")

    def encode(self, texts: Sequence[str], longest: int | None = None) -> np.ndarray:
        """Hypotheses as a corrector reads them: int32 [B, S], all padded with 0 to one length."""
        longest = longest or self.label_tokens
        out = np.zeros((len(texts), longest + self.net.start), dtype=np.int32)
        for row, encoding in zip(out, self.tokenizer.encode_batch(list(texts)), strict=True):
            ids = encoding.ids if len(encoding.ids) <= longest else [*encoding.ids[: longest - 1], encoding.ids[-1]]
            row[self.net.start : self.net.start + len(ids)] = ids
        return out

    def generate(
        self,
        targets: np.ndarray,
        hypothesis_ids: np.ndarray | None = None,
        hypothesis_vectors: np.ndarray | None = None,
        *,
        beams: int = 1,
        max_length: int | None = None,
        batch_size: int = 32,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best texts of each row, in batches of one size.

        Args:
            targets: vectors [B, E].
            hypothesis_ids, hypothesis_vectors: for a corrector what `encode` gives [B, S], and the vectors [B, E].
            beams: 1 is greedy; of more all are returned, best first.
            max_length: ids of a text at most, the start token included.
            batch_size: rows at a time; the last batch is filled up, so that nothing is compiled again.

        Returns:
            ids int64 [B, beams, T], start token first, padded with 0, and log p [B, beams] in nats.

        Raises:
            InputError: vectors of another dimension, or a corrector without hypotheses.
        """
        condition = [np.asarray(targets, dtype=np.float32)]
        if self.net.corrects:
            if hypothesis_ids is None or hypothesis_vectors is None:
                raise InputError("a corrector needs hypotheses and their vectors")
            condition += [np.asarray(hypothesis_ids, np.int32), np.asarray(hypothesis_vectors, np.float32)]
        if condition[0].ndim != 2 or condition[0].shape[1] != self.net.dim:
            raise InputError(
                f"vectors of shape {condition[0].shape}, but the model reads [rows, {self.net.dim}]: give those of its "
                "embedder"
            )
        longest = max_length or self.label_tokens + 1
        if beams < 1 or longest < 2:
            raise InputError(f"beams is {beams} and max_length {longest}: give at least 1 and 2")
        if (beams, longest) not in self._writers:
            self._writers[beams, longest] = Writer(self.net, beams, longest, self.end)
        writer = self._writers[beams, longest]
        self.net.set_train(False)
        rows = len(targets)
        ids = np.zeros((rows, beams, longest), dtype=np.int64)
        logprobs = np.zeros((rows, beams), dtype=np.float32)
        for start in range(0, rows, batch_size):
            at = np.minimum(np.arange(start, start + min(batch_size, max(rows, 1))), rows - 1)
            found, sums = writer.write(*(part[at] for part in condition))
            stop = min(start + batch_size, rows)
            ids[start:stop, :, : found.shape[2]] = found[: stop - start]
            logprobs[start:stop] = sums[: stop - start]
        used = int((ids != 0).any((0, 1)).nonzero()[0].max(initial=0)) + 1
        return ids[:, :, :used], logprobs

    def write(
        self,
        targets: np.ndarray,
        hypotheses: Sequence[str] | None = None,
        hypothesis_vectors: np.ndarray | None = None,
        **options: Any,
    ) -> list[list[tuple[str, float]]]:
        """As `generate`, with texts: of each row the best texts with their log p in nats."""
        read = self.encode(hypotheses) if hypotheses is not None else None
        ids, logprobs = self.generate(targets, read, hypothesis_vectors, **options)
        texts = self.decode(ids.reshape(-1, ids.shape[2]))
        found = list(zip(texts, logprobs.ravel().tolist(), strict=True))
        width = ids.shape[1]
        return [found[i : i + width] for i in range(0, len(found), width)]

    def decode(self, ids: np.ndarray) -> list[str]:
        """ids [R, T] → texts; what follows the end of a text is left out."""
        rows = []
        for row in ids[:, 1:].tolist():
            rows.append(row[: row.index(self.end)] if self.end in row else row)
        return self.tokenizer.decode_batch(rows, skip_special_tokens=True)


def named(net: nn.Cell) -> dict[str, Parameter]:
    """A network's parameters by the names that they have in a folder."""
    return {
        name.replace(".gamma", ".weight").replace(".beta", ".bias"): parameter
        for name, parameter in net.parameters_and_names()
    }


def array(parameter: Parameter) -> np.ndarray:
    return np.ascontiguousarray(parameter.asnumpy())


def fill(net: nn.Cell, folder: Folder) -> None:
    """Give a network the tensors of a folder. Raises CheckpointError as `weights.check`."""
    wanted = named(net)
    weights.check(folder, {name: tuple(parameter.shape) for name, parameter in wanted.items()})
    for name, parameter in wanted.items():
        parameter.set_data(Tensor(folder.tensors[name]))


def _tokenizer(folder: Folder) -> Tokenizer:
    """In the model's folder, or in one named like its T5 beside it, as public checkpoints have it."""
    backbone = str(folder.config.get("model_name_or_path") or "t5-base")
    places = [folder.path, folder.path.parent / backbone, folder.path.parent.parent / backbone]
    file = next((place / "tokenizer.json" for place in places if (place / "tokenizer.json").is_file()), None)
    if file is None:
        raise CheckpointError(f"{folder.path} has no tokenizer.json: copy that of {backbone} there")
    try:
        found = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust library raises plain Exception
        raise CheckpointError(f"{file} is damaged ({error}): copy it again") from error
    found.no_padding()
    found.no_truncation()
    return found
