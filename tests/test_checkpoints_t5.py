"""Writing, converting and placing T5 checkpoints: what was read is written, and of a failure nothing is left."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

import unembed
from unembed.checkpoints import load_model, nanov2t, vec2text
from unembed.checkpoints.convert import convert
from unembed.checkpoints.placement import Placement
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import CheckpointError, InputError, StorageError
from unembed.models.encoder_decoder import IGNORED, EncoderDecoderNetwork, ProjectionConfig

CPU = torch.device("cpu")
FORMATS = {"vec2text": vec2text, "nanov2t": nanov2t}
REFERENCES = (
    ("vec2text", "vec2text/jxm/gtr__nq__32"),
    ("vec2text", "vec2text/jxm/gtr__nq__32__correct"),
    ("nanov2t", "nanov2t/stage1"),
    ("nanov2t", "nanov2t/stage2"),
)
WORDS = "the cat sat on a mat and saw 4711 letters of Größe".split()


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def make(dim, hidden=None, corrector=False, masked_start=False, layer_norm=True, feedback=True, width=32, **sizes):
    """A random network; sizes are of the T5."""
    torch.manual_seed(dim + width)
    sizes = {"d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 16} | sizes
    t5 = T5ForConditionalGeneration(T5Config(d_model=width, decoder_start_token_id=0, **sizes))
    config = ProjectionConfig(
        dim,
        4,
        hidden or dim,
        corrector,
        layer_norm=corrector and layer_norm,
        masked_start=masked_start,
        feedback=feedback,
    )
    return EncoderDecoderNetwork(t5, config).eval().requires_grad_(False)


def spec_of(dim, **fields):
    return EmbedderSpec("sentence-transformers/toy", dim, max_tokens=32, **fields)


def save(format, net, folder, tokenizer, spec=None, **options):
    spec = spec or spec_of(net.config.embedding_dim)
    options = {"backbone": "t5-base", "max_tokens": 32} | options
    FORMATS[format].save(net, folder, tokenizer=tokenizer, spec=spec, **options)


def logits(net):
    generator = torch.Generator().manual_seed(1)
    vectors, others = (torch.randn(2, net.config.embedding_dim, generator=generator) for _ in range(2))
    labels = torch.tensor([[5, 6, 1], [7, 1, IGNORED]])
    hypothesis = (torch.tensor([[4, 3, 1], [8, 9, 1]]), others) if net.config.corrector else ()
    return net(vectors, labels, *hypothesis).logits


def load(format, folder, **spread):
    return FORMATS[format].Checkpoint(folder).network(Placement(CPU, **spread))


def shapes(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: (file.get_slice(name).get_shape(), file.get_slice(name).get_dtype()) for name in file.keys()}


# --- there and back ---


@pytest.mark.parametrize(("format", "name"), REFERENCES)
def test_a_reference_folder_is_written_as_it_was_read(parity_dir, tmp_path, format, name):
    source, folder = parity_dir / name, tmp_path / "copy"
    convert(source, folder, format)
    assert shapes(folder) == shapes(source)
    before, after = load_file(source / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(before[tensor], after[tensor]) for tensor in before)
    theirs, ours = (json.loads((path / "config.json").read_text()) for path in (source, folder))
    assert set(ours) <= set(theirs) and {key: theirs[key] for key in ours} == ours
    first, second = FORMATS[format].Checkpoint(source), FORMATS[format].Checkpoint(folder)
    assert second.spec == first.spec and second.length == first.length
    texts = ["house", "A  strange,\nline — 4711 of Größe </s> <extra_id_3> don't .", ""]
    assert second.tokenizer()(texts)["input_ids"] == first.tokenizer()(texts)["input_ids"]
    ids = second.tokenizer()(texts)["input_ids"]
    for skip in (True, False):
        one, other = (c.tokenizer().batch_decode(ids, skip_special_tokens=skip) for c in (first, second))
        assert one == other
    assert not FORMATS[format].is_corrector(folder) or name.endswith(("correct", "stage2"))


def test_a_copied_pair_writes_the_same_texts(parity_dir, tmp_path):
    names = [parity_dir / "vec2text/jxm/gtr__nq__32", parity_dir / "vec2text/jxm/gtr__nq__32__correct"]
    for source in names:
        convert(source, tmp_path / source.name, "vec2text")
    before, after = (
        load_model("+".join(str(path) for path in paths), CPU) for paths in (names, [tmp_path / n.name for n in names])
    )
    vectors = np.load(parity_dir / "vec2text" / "reference.npz")["embeddings"][:4]
    texts = [[row[0] for row in model.hypothesize(vectors)] for model in (before, after)]
    assert texts[0] == texts[1]
    drafts = [hypothesis.text for hypothesis in texts[0]]
    assert before.correct(vectors, drafts, vectors) == after.correct(vectors, drafts, vectors)
    assert after.embedder == f"checkpoint:{tmp_path / 'gtr__nq__32'}"


@pytest.mark.parametrize(
    ("format", "net"),
    [
        ("vec2text", {"dim": 24, "corrector": True, "masked_start": True, "feedback": False}),
        ("vec2text", {"dim": 24}),
        ("vec2text", {"dim": 24, "corrector": True, "masked_start": True}),
        ("nanov2t", {"dim": 24, "hidden": 32}),
        ("nanov2t", {"dim": 24, "hidden": 32, "corrector": True}),
        ("nanov2t", {"dim": 24, "hidden": 32, "corrector": True, "layer_norm": False}),
        ("nanov2t", {"dim": 24, "hidden": 32, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    ],
)
def test_a_network_of_our_own_comes_back(tokenizer, tmp_path, format, net):
    made = make(**net)
    if "tie_word_embeddings" in net:  # T5 1.1: its head is not the table, and its output is not scaled
        made.t5.lm_head.weight = torch.nn.Parameter(torch.randn(16, 32), requires_grad=False)
    expected = logits(made)
    save(format, made, tmp_path / "m", tokenizer, shard_size="20KB", card="# Card\n", max_tokens=48)
    assert len(list((tmp_path / "m").glob("model-*.safetensors"))) > 2 and (tmp_path / "m" / "README.md").exists()
    assert (tmp_path / "m" / "model.safetensors.index.json").is_file()
    again = load(format, tmp_path / "m")
    torch.testing.assert_close(logits(again), expected, atol=0, rtol=0)
    checkpoint = FORMATS[format].Checkpoint(tmp_path / "m")
    # A corrector is read as its format wires it; of a hypothesizer the start token says nothing.
    assert again.config == made.config or not made.config.corrector
    assert checkpoint.length == 48
    assert (again.t5.lm_head.weight is again.t5.shared.weight) == ("tie_word_embeddings" not in net)
    assert again.t5.encoder.embed_tokens.weight is again.t5.shared.weight
    text = (tmp_path / "m" / "config.json").read_text()
    assert str(tmp_path) not in text and 'token"' not in text
    assert AutoTokenizer.from_pretrained(tmp_path / "m")("the cat")["input_ids"] == [3, 4, 1]


@pytest.mark.parametrize("format", FORMATS)
def test_the_embedders_recipe_is_kept(tokenizer, tmp_path, format):
    net = make(24, 24 if format == "vec2text" else 32)
    named = "vec2text" == format
    for i, (spec, written) in enumerate(
        [
            (spec_of(24), not named),  # nanoV2T's format says nothing of the length that is read
            (spec_of(24, fingerprint=(0.5, -1.0), prefix="query: "), True),
            (EmbedderSpec("sentence-transformers/gtr-t5-base#raw", 24, normalized=False, max_tokens=32), not named),
            (EmbedderSpec("openai:text-embedding-ada-002", 24, pooling="unknown", max_tokens=8191), not named),
            (EmbedderSpec("openai:text-embedding-3-small", 24, pooling="unknown", max_tokens=8191), True),
        ]
    ):
        folder = tmp_path / str(i)
        save(format, net, folder, tokenizer, spec)
        assert FORMATS[format].Checkpoint(folder).spec == spec
        config = json.loads((folder / "config.json").read_text())
        assert ("embedder_spec" in config) == written
    config = json.loads((tmp_path / "3" / "config.json").read_text())
    if named:
        assert (config["embedder_model_api"], config["embedder_model_name"]) == ("text-embedding-ada-002", "gtr_base")
    config["embedder_spec"] = spec_of(23).to_dict()
    (tmp_path / "3" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="vectors of 23 numbers, its tensors of 24"):
        _ = FORMATS[format].Checkpoint(tmp_path / "3").spec


def test_a_hypothesizer_carries_its_embedder_and_others_are_opened_by_name(parity_dir, tmp_path, caplog):
    source = parity_dir / "vec2text/jxm/gtr__nq__32"
    checkpoint = vec2text.Checkpoint(source)
    assert checkpoint.brings_embedder
    net, tensors = checkpoint.network(Placement(CPU)), dict(checkpoint.embedder_tensors())
    options = {"backbone": "t5-base", "tokenizer": checkpoint.tokenizer(), "max_tokens": 32}
    gtr = EmbedderSpec("sentence-transformers/gtr-t5-base", 768, max_tokens=32)
    # What Sentence-Transformers calls its tensors, with the Dense layer that a raw encoder does not have.
    renamed = {f"0.auto_model.encoder.{name}": tensor for name, tensor in tensors.items()}
    vec2text.save(net, tmp_path / "st", spec=gtr, embedder_tensors=renamed, **options)
    model = load_model(tmp_path / "st", CPU)
    assert model.embedder is None and model.spec == gtr
    assert not caplog.records
    vec2text.save(net, tmp_path / "bare", spec=checkpoint.spec, **options)
    assert "holds no embedder" in caplog.text and "vec2text cannot use it" in caplog.text
    assert load_model(tmp_path / "bare", CPU).embedder is None
    assert load_model(source, CPU).embedder == f"checkpoint:{source}"


# --- converting ---


@pytest.mark.parametrize("dim", [24, 32])  # narrower than the T5, and as wide
def test_a_hypothesizer_of_vec2text_becomes_nanov2t_and_comes_back(tokenizer, tmp_path, dim):
    net = make(dim)
    expected = logits(net)
    spec = spec_of(dim, fingerprint=(1.0, 2.0))
    save("vec2text", net, tmp_path / "a", tokenizer, spec, embedder_tensors={"x": torch.ones(2)})
    convert(tmp_path / "a", tmp_path / "b", "nanov2t")
    converted = load("nanov2t", tmp_path / "b")
    assert converted.config.hidden == 32 and not any("embedder" in name for name in shapes(tmp_path / "b"))
    torch.testing.assert_close(logits(converted), expected, atol=1e-6, rtol=0)
    assert nanov2t.Checkpoint(tmp_path / "b").spec == spec
    with pytest.raises(CheckpointError, match="with --backbone"):
        convert(tmp_path / "b", tmp_path / "c", "vec2text")
    convert(tmp_path / "b", tmp_path / "c", "vec2text", backbone="t5-base")
    torch.testing.assert_close(logits(load("vec2text", tmp_path / "c")), expected, atol=1e-6, rtol=0)
    before, after = (load_file(tmp_path / part / "model.safetensors") for part in "ac")
    del before["embedder.x"]
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_conversions_that_change_the_function_are_refused(parity_dir, tokenizer, tmp_path):
    vec, nano = parity_dir / "vec2text/jxm", parity_dir / "nanov2t"
    for source, format, message in (
        (vec / "gtr__nq__32", "nanov2t", "768 wide and would have to be 64"),
        (vec / "gtr__nq__32__correct", "nanov2t", "is a corrector of vec2text"),
        (nano / "stage1", "vec2text", "64 wide and would have to be 40"),
        (nano / "stage2", "vec2text", "is a corrector of nanov2t"),
        (nano / "embedder", "vec2text", "no format that can be converted"),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            convert(source, tmp_path / "x", format)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="unknown format 'onnx': choose vec2text or nanov2t"):
        convert(nano / "stage1", tmp_path / "x", "onnx")
    for format, net, message in (
        ("nanov2t", make(24), "as wide as the T5"),
        ("nanov2t", make(32, corrector=True, masked_start=True), "without a masked token"),
        ("nanov2t", make(32, corrector=True, feedback=False), "read the hypothesis' vector"),
        ("vec2text", make(24, 32), "as wide as the vector"),
        ("vec2text", make(24, corrector=True), "begin a hypothesis with a masked token"),
        ("vec2text", make(24, corrector=True, masked_start=True, layer_norm=False), "normalise their input"),
    ):
        with pytest.raises(CheckpointError, match=message):
            save(format, net, tmp_path / "x", tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_the_masked_start_really_changes_a_correctors_function(parity_dir):
    """Why correctors are not converted: the same tensors, read with and without the start token, differ by far more
    than rounding."""
    net = load("vec2text", parity_dir / "vec2text/jxm/gtr__nq__32__correct")
    vectors = torch.from_numpy(np.load(parity_dir / "vec2text" / "reference.npz")["embeddings"][:2])
    labels, ids = torch.tensor([[5, 6, 1], [7, 9, 1]]), torch.tensor([[4, 3, 1], [8, 9, 1]])
    started = torch.nn.functional.pad(ids, (1, 0))
    difference = net(vectors, labels, ids, vectors).logits - net(vectors, labels, started, vectors).logits
    assert difference.abs().max() > 1e-3


# --- what goes wrong while writing ---


@pytest.fixture
def full_disk():
    """Files may grow to 30 kB and not beyond, as on a disk that is full: the system itself refuses to write on."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_nothing_and_keeps_what_was_there(tokenizer, tmp_path, request, format):
    net = make(32)
    save(format, net, tmp_path / "old", tokenizer)
    old = (tmp_path / "old" / "model.safetensors").read_bytes()
    request.getfixturevalue("full_disk")
    for folder in ("new", "old"):
        with pytest.raises(StorageError, match="free space or choose another folder") as caught:
            save(format, net, tmp_path / folder, tokenizer)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old" / "model.safetensors").read_bytes() == old


def test_a_model_is_replaced_as_a_whole_and_nothing_else_is(tokenizer, tmp_path):
    save("vec2text", make(32), tmp_path / "m", tokenizer, shard_size="20KB")
    second = make(24)
    save("vec2text", second, tmp_path / "m", tokenizer, spec_of(24))
    assert not list((tmp_path / "m").glob("model-*"))
    assert torch.equal(logits(load("vec2text", tmp_path / "m")), logits(second))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"architectures": ["BertModel"]}')
    for name in ("mine", "file", "bert"):
        with pytest.raises(StorageError, match="is no InversionModel: choose another folder"):
            save("vec2text", make(32), tmp_path / name, tokenizer)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    save("vec2text", make(32), tmp_path / "empty", tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert", "empty", "file", "m", "mine"]


# --- large models ---


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
def test_the_precision_is_applied_while_loading(tokenizer, tmp_path, kind):
    save("nanov2t", make(32), tmp_path / "m", tokenizer)
    dtype = getattr(torch, kind)
    net = load("nanov2t", tmp_path / "m", dtype=dtype)
    odd = {name for name, parameter in net.named_parameters() if parameter.dtype != dtype}
    wide = {name for name, _ in net.named_parameters() if name.endswith("DenseReluDense.wo.weight")}
    assert odd == (wide if kind == "float16" else set())  # that sum overflows in float16
    assert logits(net).isfinite().all()


@pytest.mark.parametrize("where", ["all", "half"])
def test_parts_on_disk_give_the_same_texts(tokenizer, tmp_path, where):
    for name, net in (("h", make(32)), ("c", make(32, corrector=True, masked_start=True))):
        save("vec2text", net, tmp_path / name, tokenizer, shard_size="20KB")
    name = f"{tmp_path / 'h'}+{tmp_path / 'c'}"
    half = {"shared": "disk", "lm_head": "disk", "encoder.embed_tokens": "disk", "decoder.embed_tokens": "disk",
            "encoder.block": "cpu", "encoder.final_layer_norm": "cpu", "decoder.block.0": "cpu",
            "decoder.block.1": "disk", "decoder.final_layer_norm": "cpu"}  # fmt: skip
    spread = {"device_map": half} if where == "half" else {"device_map": "auto", "max_memory": {"cpu": 0}}
    half_precision = load("vec2text", tmp_path / "h", dtype=torch.float16, **spread)
    assert logits(half_precision).dtype == torch.float16 and logits(half_precision).isfinite().all()
    plain, spread_out = load_model(name, CPU), load_model(name, CPU, **spread)
    assert any(parameter.is_meta for parameter in spread_out.hypothesizer.t5.parameters())
    assert not any(parameter.is_meta for parameter in plain.hypothesizer.parameters())
    vectors = np.eye(3, 32, dtype=np.float32)
    one, other = (model.hypothesize(vectors) for model in (plain, spread_out))
    assert [row[0].text for row in one] == [row[0].text for row in other]
    np.testing.assert_allclose([r[0].logprob for r in one], [r[0].logprob for r in other], rtol=1e-5)
    drafts = [row[0].text or "the cat" for row in one]
    one, other = (model.correct(vectors, drafts, vectors, 2) for model in (plain, spread_out))
    assert [[h.text for h in row] for row in one] == [[h.text for h in row] for row in other]
    with pytest.raises(InputError, match="partly on disk cannot be written"):
        save("vec2text", spread_out.hypothesizer, tmp_path / "again", tokenizer)


def test_a_spread_pair_by_name(parity_dir):
    folder = parity_dir / "vec2text/jxm"
    name = f"{folder / 'gtr__nq__32'}+{folder / 'gtr__nq__32__correct'}"
    inverter = unembed.load(name, device="cpu", model_dtype="bfloat16", device_map="auto", max_memory={"cpu": "300KB"})
    model = inverter.model
    kinds = {parameter.is_meta for parameter in model.corrector.t5.parameters()}
    assert kinds == {True, False} and model.corrector.t5.dtype == torch.bfloat16
    vectors = np.load(parity_dir / "vec2text" / "reference.npz")["embeddings"][:2]
    whole = unembed.load(name, device="cpu", model_dtype="bfloat16")
    options = {"steps": 1, "sequence_beam_width": 1, "screened": 0, "variations": 0, "hypotheses": 1}
    texts = [[found.text for found in i.invert(vectors, **options)] for i in (inverter, whole)]
    assert texts[0] == texts[1] and all(texts[0])
    with pytest.raises(InputError, match="unknown precision 'int4'"):
        unembed.load(name, model_dtype="int4")


def test_device_maps_that_are_none(tokenizer, tmp_path, inverter):
    save("nanov2t", make(32), tmp_path / "m", tokenizer)
    with pytest.raises(InputError, match="unknown device_map 'balanced'"):
        load_model(tmp_path / "m", CPU, device_map="balanced")
    with pytest.raises(InputError, match="names a device that there is not"):
        load_model(tmp_path / "m", CPU, device_map={"": "gpu7"})
    with pytest.raises(InputError, match="device_map says nothing of encoder.block.0"):
        load_model(tmp_path / "m", CPU, device_map={"decoder": "cpu", "shared": "cpu"})
    with pytest.raises(InputError, match="only the T5 family is spread"):
        load_model("minilm", CPU, device_map="auto")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    torch.save(tensors, tmp_path / "m" / "pytorch_model.bin")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="only safetensors can be read piece by piece"):
        load_model(tmp_path / "m", CPU, device_map="auto", max_memory={"cpu": 0})


MEASURE = """
import sys, torch
from pathlib import Path
from transformers import T5ForConditionalGeneration  # the libraries' own memory comes before the measurement
import transformers.generation
from unembed.checkpoints import nanov2t
from unembed.checkpoints.placement import Placement
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
small, large = sys.argv[1:]
nanov2t.Checkpoint(Path(small)).network(Placement(torch.device("cpu")))
before = peak()
net = nanov2t.Checkpoint(Path(large)).network(Placement(torch.device("cpu")))
print(peak() - before, sum(p.nbytes for p in net.parameters()) / 2**20)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from Linux' /proc")
def test_loading_holds_the_model_and_one_shard(tokenizer, tmp_path):
    save("nanov2t", make(32), tmp_path / "small", tokenizer)
    net = make(256, 256, width=256, d_ff=2048, d_kv=32, num_layers=6, num_heads=8)
    save("nanov2t", net, tmp_path / "large", tokenizer, shard_size="8MB")
    del net
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, size = map(float, done.stdout.split())
    assert size > 50
    assert grown < size + 2 * 8 + 8, f"{grown:.0f} MiB for a model of {size:.0f}"
