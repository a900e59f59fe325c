"""Embedders that run here: every model that sentence-transformers can load, by hub id or folder.

Notable:
- The vectors are those of `SentenceTransformer.encode` (the tests hold them to 1e-6) with less around them: one call of
  the Rust tokenizer for thousands of texts, batches of like length, no look at each text in Python.
- Models outside the common shape (multi-modal, chat templates, slow tokenizers) take the library's own path.
- `dtype` is the precision of the transformer alone; pooling and normalisation stay in float32, so that vectors computed
  in bfloat16 still have length 1 and carry no second rounding.
- Pooling, normalisation, length limit, prompts and casing are read from the loaded model and its tokenizer.
- Nothing is loaded before it is needed, and neither logging nor environment nor the model's own tokenizer is changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unembed.devices import resolve_device
from unembed.embedders.loading import load_sentence_transformer
from unembed.embedders.spec import DTYPES, FINGERPRINT_TEXTS, UNKNOWN, EmbedderSpec, take_fingerprint
from unembed.embedders.tokenized import TokenizedEmbedder
from unembed.embedders.tokens import copy_tokenizer, is_cased
from unembed.errors import InputError, TokensUnknown

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Encoding, Tokenizer

WINDOW = 8192
"""Texts tokenised and sorted by length at a time: enough for full batches of like length, not too many for memory."""
TOKENS_PER_TEXT = 64
"""A batch of `batch_size` texts is cut short once it holds `batch_size` x this many padded tokens."""
UNLIMITED = 2**31 - 1
"""`EmbedderSpec.max_tokens` of a model without a limit (static embeddings)."""
RAW = "#raw"
"""Suffix of the id of an embedder that stops after the pooling: no Dense, no Normalize."""


class SentenceTransformerEmbedder(TokenizedEmbedder):
    """A sentence-transformers model as an `Embedder`.

    Args:
        path_or_id: a folder, or an id on the hub such as `sentence-transformers/gtr-t5-base`.
        device: see `unembed.devices.resolve_device`; None takes the best there is.
        dtype: precision of the transformer: float32, bfloat16 or float16.
        batch_size: texts in a forward pass at most; None takes 32 on a CPU (its caches) and 1024 elsewhere.
        revision: branch, tag or commit on the hub.
        prefix: text put before every input; None takes the model's default prompt, which most models have not.
        prompt: name of one of the model's own prompts (`query`, `document`, ...) instead of a literal `prefix`.
        max_tokens: cut inputs to this many tokens instead of the model's own limit.
        raw: stop after the pooling, without the Dense and Normalize layers that follow it, as vec2text's "GTR" does.
        trust_remote_code: let the model's repository run its own code.
        local_files_only: never go to the network.
        id: name to carry in the spec instead of `path_or_id`.
    """

    def __init__(
        self,
        path_or_id: str | Path,
        device: str | torch.device | None = None,
        dtype: str = "float32",
        batch_size: int | None = None,
        revision: str | None = None,
        prefix: str | None = None,
        prompt: str | None = None,
        *,
        max_tokens: int | None = None,
        raw: bool = False,
        trust_remote_code: bool = False,
        local_files_only: bool = False,
        id: str | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise InputError(f"unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
        for name, value in (("batch_size", batch_size), ("max_tokens", max_tokens)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}; correct it")
        if prefix is not None and prompt is not None:
            raise InputError(
                "prefix and prompt were both given; choose one: the literal text or the name of a prompt of the model"
            )
        self.path_or_id = str(path_or_id)
        self.dtype = dtype
        self.batch_size = batch_size
        self._id = id
        self._device = device
        self._options: dict[str, Any] = {
            "revision": revision, "prefix": prefix, "prompt": prompt, "max_tokens": max_tokens, "raw": raw,
            "trust_remote_code": trust_remote_code, "local_files_only": local_files_only,
        }  # fmt: skip
        self._model: SentenceTransformer | None = None
        self._spec: EmbedderSpec | None = None
        self._prefix = ""
        self._split = False
        self._batch_tokenizer: Tokenizer | None = None
        self._text_tokenizer: Tokenizer | None = None

    # -- loading --

    @property
    def model(self) -> SentenceTransformer:
        """The loaded sentence-transformers model; loads it on first use."""
        if self._model is None:
            self._model = self._load()
        return self._model

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return resolve_device(self._device)

    @property
    def spec(self) -> EmbedderSpec:
        """Read from the loaded model; the fingerprint is measured on first use."""
        if self._spec is None:
            self._spec = self._read_spec()
        return self._spec

    def with_dtype(self, dtype: str) -> SentenceTransformerEmbedder:
        """A second embedder of the same model in another precision."""
        return SentenceTransformerEmbedder(
            self.path_or_id, device=self._device, dtype=dtype, batch_size=self.batch_size, id=self._id, **self._options
        )

    def _load(self) -> SentenceTransformer:
        """Load the model, decide which path its batches take, and return it."""
        device = self.device  # a wrong device is reported before minutes of download
        options = self._options
        model = load_sentence_transformer(
            self.path_or_id,
            str(device),
            revision=options["revision"],
            trust_remote_code=options["trust_remote_code"],
            local_files_only=options["local_files_only"],
        )
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        self._prefix = self._read_prefix(model)
        if options["raw"]:
            kept = next((i for i, module in enumerate(model) if isinstance(module, Pooling)), None)
            if kept is None:
                raise InputError(f"embedder {self.path_or_id} has no pooling layer to stop after; load it without raw")
            model = SentenceTransformer(modules=list(model)[: kept + 1], device=str(device))
        model.eval().requires_grad_(False)
        self._limit_length(model)
        self._plan(model)
        if self.dtype != "float32":
            (model[0] if self._split else model).to(getattr(torch, self.dtype))
        return model

    def _read_prefix(self, model: SentenceTransformer) -> str:
        """The text put before every input: the literal one, a prompt of the model by name, or its default prompt."""
        if self._options["prefix"] is not None:
            return self._options["prefix"]
        name = self._options["prompt"]
        if name is None:
            name = model.default_prompt_name
        elif name not in model.prompts:
            known = ", ".join(sorted(model.prompts)) or "none"
            raise InputError(
                f"embedder {self.path_or_id} has no prompt '{name}', its prompts are: {known}; or give prefix="
            )
        return (model.prompts.get(name) or "") if name is not None else ""

    def _limit_length(self, model: SentenceTransformer) -> None:
        """Apply `max_tokens`, within what the model's positions allow."""
        limit = self._options["max_tokens"]
        if limit is None:
            return
        positions = getattr(getattr(model[0], "config", None), "max_position_embeddings", None)
        if isinstance(positions, int) and 0 < positions < limit:
            raise InputError(f"embedder {self.path_or_id} reads at most {positions} tokens; lower max_tokens={limit}")
        model.max_seq_length = limit

    def _plan(self, model: SentenceTransformer) -> None:
        """Decide between the fast path and the library's own, and prepare the tokenizers."""
        from sentence_transformers.base.modules import Dense, Normalize, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        first, rest = model[0], list(model)[1:]
        plain = type(first) is Transformer and all(type(module) in (Pooling, Dense, Normalize) for module in rest)
        self._split = plain and any(isinstance(module, Pooling) for module in rest)
        tokenizer: Any = getattr(model, "tokenizer", None)
        backend: Any = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if type(backend).__module__.split(".")[0] != "tokenizers":
            return
        as_characters = bool(getattr(tokenizer, "split_special_tokens", False))
        self._text_tokenizer = copy_tokenizer(backend, as_characters)
        # The prompt-aware pooling of INSTRUCTOR, chat templates and per-modality options stay with the library.
        if (
            self._split
            and list(first.modality_config) == ["text"]
            and not first.processing_kwargs
            and not first.can_flatten_inputs
            and first.processor is tokenizer
            and tokenizer.pad_token_id is not None
            and isinstance(model.max_seq_length, int)
            and not (self._prefix and any(isinstance(m, Pooling) and not m.include_prompt for m in rest))
        ):
            self._batch_tokenizer = copy_tokenizer(backend, as_characters)
            if model.max_seq_length < UNLIMITED:
                self._batch_tokenizer.enable_truncation(model.max_seq_length, direction=tokenizer.truncation_side)

    def _read_spec(self) -> EmbedderSpec:
        """Read every field from the loaded modules and measure the fingerprint."""
        from sentence_transformers.base.modules import Normalize
        from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding

        model = self.model
        vectors = self.probe(FINGERPRINT_TEXTS)
        last = list(model)[-1]
        declared = (
            isinstance(last, Normalize)
            and last.module_output_name == "sentence_embedding"
            and model.truncate_dim is None  # which cuts after the normalisation
        )
        # A model's own last module may normalise under another name; then its vectors say so.
        measured = bool(np.abs(np.linalg.norm(vectors, axis=1) - 1.0).max() < 1e-3)
        pooling = [module.pooling_mode for module in model if isinstance(module, Pooling)]
        if pooling:
            pooled = pooling[-1] if isinstance(pooling[-1], str) else "+".join(pooling[-1])
        else:
            pooled = "mean" if isinstance(model[0], StaticEmbedding) else UNKNOWN
        limit = model.max_seq_length
        commit = getattr(getattr(model[0], "config", None), "_commit_hash", None)
        name = self._id or self.path_or_id
        return EmbedderSpec(
            id=name if not self._options["raw"] or name.endswith(RAW) else name + RAW,
            dim=vectors.shape[1],
            revision=commit or self._options["revision"],
            pooling=pooled,
            normalized=declared or measured,
            prefix=self._prefix,
            max_tokens=int(limit) if limit is not None and limit < UNLIMITED else UNLIMITED,
            dtype=self.dtype,
            cased=self._text_tokenizer is None or is_cased(self._text_tokenizer),
            fingerprint=take_fingerprint(vectors),
        )

    # -- embedding --

    def _embed(self, texts: list[str]) -> np.ndarray:
        """Vectors [n, d] in float32; halves the batch when the device runs out of memory."""
        import torch

        model = self.model
        batch_size = self.batch_size or (32 if model.device.type == "cpu" else 1024)
        parts: list[np.ndarray] = []
        start = 0
        while start < len(texts):
            try:
                with torch.inference_mode():
                    parts.append(self._embed_window(model, texts[start : start + WINDOW], batch_size))
            except torch.OutOfMemoryError as error:
                if batch_size == 1:
                    raise InputError(
                        f"out of memory on {model.device} with a single text; use another device or lower max_tokens"
                    ) from error
                batch_size //= 2
            else:
                start += WINDOW
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _embed_window(self, model: SentenceTransformer, texts: list[str], batch_size: int) -> np.ndarray:
        """Vectors [n, d] of up to `WINDOW` texts, in batches of like length, back in their order."""
        import torch

        tokenizer = self._batch_tokenizer  # None on the slow path
        items: Sequence[Any] = texts if tokenizer is None else self._tokenize(tokenizer, texts)
        lengths = np.array([len(item) for item in items])  # tokens, or characters on the slow path
        by_length = np.argsort(-lengths, kind="stable")  # longest first: memory runs out at once or never
        outputs = []
        for rows in _batches(by_length, lengths, batch_size, count_tokens=tokenizer is not None):
            batch = [items[row] for row in rows]
            features = model.preprocess(batch, prompt=self._prefix) if tokenizer is None else self._pad(model, batch)
            for name, value in features.items():
                if isinstance(value, torch.Tensor):
                    features[name] = value.to(model.device, non_blocking=True)
            outputs.append(self._forward(model, features)[:, : model.truncate_dim])  # [b, d]
        stacked = torch.cat(outputs).float().cpu().numpy()  # the only wait for the device
        vectors = np.empty_like(stacked)
        vectors[by_length] = stacked
        return vectors

    def _tokenize(self, tokenizer: Tokenizer, texts: list[str]) -> list[Encoding]:
        """The tokens of each text with prefix and special tokens, cut to the model's limit, unpadded."""
        return tokenizer.encode_batch_fast([self._prefix + text for text in texts] if self._prefix else texts)

    def _pad(self, model: SentenceTransformer, encodings: list[Encoding]) -> dict[str, Any]:
        """Features for one forward pass: `input_ids` and friends of shape [b, longest]."""
        import torch

        tokenizer = model.tokenizer
        lengths = np.array([len(encoding) for encoding in encodings])
        longest = int(lengths.max())
        positions = np.arange(longest)[None, :]
        real = (
            positions < lengths[:, None]
            if tokenizer.padding_side == "right"
            else positions >= longest - lengths[:, None]
        )

        def padded(rows: Iterator[list[int]], value: int) -> torch.Tensor:
            array = np.full(real.shape, value, dtype=np.int64)
            array[real] = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
            return torch.from_numpy(array)  # [b, longest]

        features: dict[str, Any] = {"modality": "text"}
        features["input_ids"] = padded((encoding.ids for encoding in encodings), tokenizer.pad_token_id)
        features["attention_mask"] = torch.from_numpy(real.astype(np.int64))
        if "token_type_ids" in tokenizer.model_input_names:
            features["token_type_ids"] = padded((e.type_ids for e in encodings), tokenizer.pad_token_type_id)
        return features

    def _forward(self, model: SentenceTransformer, features: dict[str, Any]) -> torch.Tensor:
        """One forward pass: [b, d] in float32 for the common shape of model, else in the model's own precision."""
        if not self._split:
            return model(features)["sentence_embedding"]
        first, *rest = model
        features = first(features)
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in rest:
            features = module(features)
        return features["sentence_embedding"]

    # -- tokens --

    def _tokens(self) -> Tokenizer:
        """The tokenizer without truncation and padding."""
        _ = self.model
        if self._text_tokenizer is None:
            raise TokensUnknown(
                f"embedder {self.path_or_id} has no fast tokenizer, its tokens cannot be counted; use another embedder"
            )
        return self._text_tokenizer

    def key(self, text: str) -> str:
        """What the embedder can distinguish: the tokens of the text, as numbers. Space around punctuation, say, is
        none to many tokenizers, and two unknown words are one."""
        _ = self.model
        if self._text_tokenizer is None:
            return super().key(text)
        return " ".join(map(str, self._text_tokenizer.encode(text, add_special_tokens=False).ids))

    def __repr__(self) -> str:
        """Name, precision and device as asked for; loads nothing."""
        name = self._id or self.path_or_id
        return f"SentenceTransformerEmbedder({name!r}, dtype={self.dtype!r}, device={self._device!r})"


def _batches(
    by_length: np.ndarray, lengths: np.ndarray, batch_size: int, *, count_tokens: bool
) -> Iterator[np.ndarray]:
    """Cut rows, sorted from the longest, into batches of at most `batch_size` rows and a bounded number of tokens.

    `lengths` are tokens if `count_tokens`; otherwise (characters) only the number of rows counts.
    """
    start = 0
    while start < len(by_length):
        rows = batch_size
        if count_tokens:
            rows = max(1, min(rows, batch_size * TOKENS_PER_TEXT // max(1, int(lengths[by_length[start]]))))
        yield by_length[start : start + rows]
        start += rows
