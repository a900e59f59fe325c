"""A model as ONNX graphs in a folder, for `unembed.models.onnx_runtime` and any other runtime of ONNX.

Notable:
- Two graphs a writer: one reads the vector (and a hypothesis), one takes a step, with keys and values going in and out.
- The weights are one file that all graphs point into, so a network that is hypothesizer and corrector is stored once,
  and no graph comes near the two gigabytes that protobuf allows.
- Each graph is made from inputs of some sizes and compared with the network on others, so that a size which the
  exporter took for a constant is found here and not by a user.

By torch's TorchScript exporter: its successor takes some twenty times as long (docs/decisions.md).
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unembed.checkpoints.native import sha256
from unembed.checkpoints.tensors import architecture
from unembed.checkpoints.writing import replacing
from unembed.errors import InputError, UnembedError, first_line, require
from unembed.export.parts import Parts, State, Writer, parts
from unembed.models.onnx_runtime import ARCHITECTURE, LEXICON, NEXT, READ_AS, READER, VERSION, digest

if TYPE_CHECKING:
    import onnx

    from unembed.models.base import InversionModel

OPSET = 18
WEIGHTS = "weights.bin"
PAGE = 4096
"""Weights begin at a multiple of this, so that a runtime can map them into memory."""
SIZES = ((17, 5), (2, 9))
"""Rows and tokens of a hypothesis, of the example that is exported and of the one that is compared."""
TOLERANCE = 1e-3
"""Of a value, as a share of the largest of its kind. float32 differs by 1e-5, a wrong constant by all."""

OTHER_VERSIONS = "export with the versions of torch and onnxruntime in constraints.txt"


@dataclass
class Graph:
    """A function of tensors, and the inputs of an example by name."""

    net: nn.Module
    function: Callable[..., tuple[Tensor, State]]
    inputs: State

    def __call__(self, inputs: State) -> State:
        """What it gives back, by name: logits, their logsumexp, and the state."""
        logits, state = self.function(*inputs.values()) if "targets" in inputs else self._step(inputs)
        return {"logits": logits, "logsumexp": logits.logsumexp(1), **state}

    def _step(self, inputs: State) -> tuple[Tensor, State]:
        logits, changed = self.function(inputs["tokens"], {k: v for k, v in inputs.items() if k != "tokens"})
        return logits, {NEXT + name: tensor for name, tensor in changed.items()}


class Traced(nn.Module):
    """A graph as the exporter wants it: a module of positional inputs and outputs, which holds the weights."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.net, self.graph = graph.net, graph

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.graph(dict(zip(self.graph.inputs, inputs, strict=True))).values())


class Plain(TorchFunctionMode):
    """Writes out what the exporter does not know."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (F.rms_norm, torch.rms_norm):
            x = args[0]
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps)
        return func(*args, **(kwargs or {}))


def export(model: InversionModel, folder: str | Path) -> None:
    """Write a model as ONNX into `folder`, in the place of an older export.

    Args:
        model: on the CPU, in float32.
        folder: to be made.

    Raises:
        MissingExtra: without onnx or onnxruntime. InputError: a family that cannot be exported, a model elsewhere than
        on the CPU or spread over devices. StorageError: a full disk, or a folder with other things in it.
        UnembedError: a graph that does not give what the network does.
    """
    require("onnx", "onnx")
    require("onnxruntime", "onnx")
    shown = parts(model)
    writers = {"hypothesize": shown.hypothesizer} | ({"correct": shown.corrector} if shown.corrector else {})
    for writer in writers.values():
        if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in writer.net.parameters()):
            raise InputError(
                'a model is exported from the CPU, in float32: load it with device="cpu", model_dtype="float32" and '
                "without device_map"
            )
    with replacing(Path(folder), lambda old: architecture(old) == ARCHITECTURE, ARCHITECTURE) as made:
        files: dict[str, dict[str, str]] = {}
        with open(made / WEIGHTS, "wb") as weights, torch.inference_mode(False), torch.no_grad():
            shelf = Shelf(weights)
            for role, writer in writers.items():
                same = next((name for name in files if writers[name] is writer), None)
                files[role] = _write_writer(role, writer, shown, made, shelf, None if same is None else files[same])
        shown.tokenizer.save(str(made / "tokenizer.json"), pretty=False)
        if shown.hypotheses and shown.hypotheses.tokenizer:
            shown.hypotheses.tokenizer.save(str(made / READER), pretty=False)
        if model.lexicon:
            np.savez(made / LEXICON, words=np.array(model.lexicon.words), directions=model.lexicon.directions)
        digests = _write_config(model, shown, files, made)
        if model.calibration:  # it writes what the model writes
            exported = replace(model.calibration, weights=digest(digests))
            exported.save(made, {"exported_from": model.digest})


def _write_writer(
    role: str, writer: Writer, shown: Parts, folder: Path, shelf: Shelf, known: dict[str, str] | None
) -> dict[str, str]:
    """The graphs of a writer, `known` of a writer whose steps are these; names of their files."""
    files = {"read": f"{role}.onnx", "step": known["step"] if known else f"{role}_step.onnx"}
    examples = [_examples(writer, shown, role == "correct", *sizes) for sizes in SIZES]
    for kind, example, other in zip(("read", "step"), *examples, strict=True):
        if kind == "step" and known:
            continue
        try:
            proto = _trace(example, other)
        except Exception as error:  # the exporter has no common class of errors
            raise InputError(
                f"this model cannot be exported, its network is beyond ONNX: {first_line(error)}"
            ) from error
        shelf.take_weights(proto, writer.net)
        (folder / files[kind]).write_bytes(proto.SerializeToString())
        _compare(folder / files[kind], other)
    return files


def _examples(writer: Writer, shown: Parts, corrects: bool, rows: int, tokens: int) -> tuple[Graph, Graph]:
    """Reading, and the second step after it, for random texts of so many rows and tokens; of steps, the more the fewer
    rows, so that no size is the same in both examples."""
    rng = torch.Generator().manual_seed(rows)
    inputs = {"targets": F.normalize(torch.randn(rows, shown.dim, generator=rng), dim=1)}
    if corrects and shown.hypotheses:
        vocabulary = (shown.hypotheses.tokenizer or shown.tokenizer).get_vocab_size()
        ids = torch.randint(3, vocabulary, (rows, tokens), generator=rng)  # special ones are first
        ids[0, tokens // 2 :] = shown.hypotheses.pad
        inputs |= {"hypothesis_ids": ids, "hypothesis_vectors": inputs["targets"].flip(0)}
    reading = Graph(writer.net, writer.read, inputs)
    logits, state = writer.read(*inputs.values())
    for _ in range(tokens // 2):
        logits, changed = writer.step(logits.argmax(1), state)
        state |= changed
    return reading, Graph(writer.net, writer.step, {"tokens": logits.argmax(1), **state})


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns that it is deprecated, and of each size that it took for a constant: those are compared. Of
    what it cannot express it prints the whole graph."""
    prints = torch._C._jit_onnx_log  # torch's own switch for it does not work
    torch._C._jit_onnx_log = lambda *said: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch._C._jit_onnx_log = prints


def _trace(example: Graph, other: Graph) -> onnx.ModelProto:
    """The graph without its weights, which are inputs of it."""
    import onnx

    outputs, others = example(example.inputs), other(other.inputs)
    pairs = {**example.inputs, **outputs}, {**other.inputs, **others}
    axes = {
        name: {axis: "rows" if axis == 0 else f"{name}_{axis}" for axis in range(tensor.dim())
               if tensor.size(axis) != pairs[1][name].size(axis)}
        for name, tensor in pairs[0].items()
    }  # fmt: skip
    buffer = io.BytesIO()
    with _quiet(), Plain():
        torch.onnx.export(
            Traced(example).eval(), tuple(example.inputs.values()), buffer,  # type: ignore[arg-type]
            input_names=list(example.inputs), output_names=list(outputs), dynamic_axes=axes, opset_version=OPSET,
            dynamo=False, export_params=False,
            do_constant_folding=False,  # it would transpose weights, and give them other names
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


class Shelf:
    """The file of weights, in which each is written once."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.places = file, dict[int, int]()

    def take_weights(self, proto: onnx.ModelProto, net: nn.Module) -> None:
        """Put what `proto` takes as inputs and `net` has as weights into the file, and have the one point to the
        other."""
        import onnx

        weights = {f"net.{name}": tensor for name, tensor in net.state_dict(keep_vars=True).items()}
        wanted = [value for value in proto.graph.input if value.name in weights]
        for value in wanted:
            proto.graph.input.remove(value)
            tensor = weights[value.name].detach()
            entry = proto.graph.initializer.add()
            entry.name, entry.data_type, entry.data_location = value.name, onnx.TensorProto.FLOAT, 1  # external
            entry.dims.extend(tensor.shape)
            where = {"location": WEIGHTS, "offset": self._offset(tensor), "length": tensor.numel() * 4}
            for key, said in where.items():
                entry.external_data.add(key=key, value=str(said))

    def _offset(self, tensor: Tensor) -> int:
        if tensor.data_ptr() not in self.places:
            self.file.write(b"\0" * (-self.file.tell() % PAGE))
            self.places[tensor.data_ptr()] = self.file.tell()
            self.file.write(tensor.contiguous().numpy().tobytes())
            self.file.flush()
        return self.places[tensor.data_ptr()]


def _compare(path: Path, graph: Graph) -> None:
    """Raise UnembedError unless the graph in a file gives what the network does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it has to say comes with the error
    expected = {name: tensor.numpy() for name, tensor in graph(graph.inputs).items()}
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feeds = {value.name: graph.inputs[value.name].numpy() for value in session.get_inputs()}
        found = dict(zip(expected, session.run(list(expected), feeds), strict=True))
    except Exception as error:  # onnxruntime has no common class of errors
        raise UnembedError(f"{path.name} does not run ({first_line(error)}): {OTHER_VERSIONS}") from error
    wrong = [name for name, tensor in expected.items() if not _same(found[name], tensor)]
    if wrong:
        raise UnembedError(f"{path.name} gives another {wrong[0]} than the network: {OTHER_VERSIONS}")


def _same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Up to rounding, in shape, and in what is not finite."""
    finite = np.isfinite(expected)
    if found.shape != expected.shape or not np.array_equal(finite, np.isfinite(found)):
        return False
    largest = np.abs(expected[finite]).max(initial=0.1)  # where log p is given, its logsumexp is 0 but for rounding
    return bool(np.abs(found[finite].astype(float) - expected[finite]).max(initial=0) <= TOLERANCE * largest)


def _write_config(
    model: InversionModel, shown: Parts, files: dict[str, dict[str, str]], folder: Path
) -> dict[str, str]:
    """config.json; the SHA-256 of the other files."""
    digests = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    config = {
        "architectures": [ARCHITECTURE],
        "version": VERSION,
        "embedder": model.spec.to_dict(),
        "opened_as": model.embedder,
        "max_tokens": shown.max_tokens,
        "end": shown.end,
        "closes": shown.closes,
        "literal": shown.literal,
        "told": shown.told,
        "varies": shown.varies,
        "search": shown.search,
        "has_prior": model.has_prior,
        "batch_size": getattr(model, "batch_size", 64),
        "hypotheses": {name: getattr(shown.hypotheses, name) for name in READ_AS} if shown.hypotheses else None,
        "writers": files,
        "sha256": digests,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return digests
