"""The same weights give the same numbers in MindSpore as in torch: logits, loss, greedy and beam ids, training steps,
and the trained weights come back. MindSpore works in another environment, by UNEMBED_MINDSPORE_PYTHON: `make
test-mindspore` makes it and runs this file.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from test_checkpoints_t5 import load, make, save, tokenizer  # noqa: F401  (a fixture)
from unembed.models.base import IGNORED, Sampling

ROOT = Path(__file__).parent.parent
ROWS, LENGTH, BEAMS = 4, 12, 3
RATE, STEPS = 0.003, 4
NETWORKS = {
    "vec2text": ("vec2text", {}),
    "vec2text-corrector": ("vec2text", {"corrector": True, "masked_start": True}),
    "nanov2t-corrector": ("nanov2t", {"hidden": 32, "corrector": True, "layer_norm": False, "num_layers": 1}),
    "t5-1.1": (
        "nanov2t",
        {"hidden": 32, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_layers": 1},
    ),
}
PREFIXES = {"gpt2-padded": 0, "gpt2-projected": 3}
REFERENCES = {
    "reference-vec2text": ("vec2text", "vec2text/jxm/gtr__nq__32"),
    "reference-vec2text-corrector": ("vec2text", "vec2text/jxm/gtr__nq__32__correct"),
    "reference-nanov2t": ("nanov2t", "nanov2t/stage1"),
    "reference-nanov2t-corrector": ("nanov2t", "nanov2t/stage2"),
}


@dataclass
class Case:
    """What torch says of one model folder."""

    folder: Path
    inputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    trained: Path
    read: object
    """(folder, inputs) → torch's loss and logits of them."""
    length: int = LENGTH
    answers: dict[str, np.ndarray] = field(default_factory=dict)


def t5_forward(net, inputs):
    condition = [torch.from_numpy(value) for name, value in inputs.items() if name != "labels"]
    out = net(condition[0], torch.from_numpy(inputs["labels"]).long(), *condition[1:])
    return out.loss, out.logits


def steps(forward, parameters, inputs):
    """Losses of a few steps of torch's AdamW with a warm-up of two; weight decay is for the matrices."""
    parameters = [part.requires_grad_(True) for part in parameters]
    matrices, others = ([part for part in parameters if (part.ndim > 1) == kind] for kind in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=RATE, eps=1e-6)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, step / 2))
    losses = []
    for _ in range(STEPS):
        loss, _ = forward(inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        losses.append(loss.item())
    return np.array(losses)


def t5_case(format, folder, trained, generator, train=True, targets=None, length=LENGTH):
    net = load(format, folder)
    dim, vocab, start = net.config.embedding_dim, net.t5.config.vocab_size, net.config.masked_start
    inputs = {"targets": torch.randn(ROWS, dim, generator=generator).numpy() if targets is None else targets}
    rows = len(inputs["targets"])
    labels = torch.randint(2, vocab, (rows, 6), generator=generator).int()
    labels[0, 3:], labels[1:, -1] = IGNORED, 1
    inputs["labels"] = labels.numpy()
    if net.config.corrector:
        ids = torch.randint(2, vocab, (rows, 5), generator=generator).int()
        ids[1, 2:] = 0
        inputs["hypothesis_ids"] = torch.nn.functional.pad(ids, (int(start), 0)).numpy()
        inputs["hypothesis_vectors"] = torch.randn(rows, dim, generator=generator).numpy()
    expected = {}
    with torch.no_grad():
        loss, logits = t5_forward(net, inputs)
    expected |= {"loss": loss.numpy(), "logits": logits.numpy()}
    condition = [torch.from_numpy(value) for name, value in inputs.items() if name != "labels"]
    for beams in (1, BEAMS) if net.config.corrector else (1,):
        sampling = Sampling(temperature=0.0, beams=beams if beams > 1 else 0)
        ids, logprobs = net.generate(*condition, n=beams, sampling=sampling, max_length=length)
        expected[f"ids{beams}"], expected[f"logprobs{beams}"] = ids.numpy(), logprobs.numpy()
    if train:
        expected["losses"] = steps(lambda given: t5_forward(net, given), net.parameters(), inputs)
    return Case(folder, inputs, expected, trained, lambda path, given: t5_forward(load(format, path), given), length)


def gpt2_forward(lm, projector, inputs):
    targets, labels = torch.from_numpy(inputs["targets"]), torch.from_numpy(inputs["labels"]).long()
    width = lm.config.n_embd
    if projector:
        soft = torch.nn.functional.linear(targets, projector["target.0.weight"], projector["target.0.bias"])
        soft = torch.nn.functional.gelu(soft) @ projector["target.3.weight"].T + projector["target.3.bias"]
        soft = soft.view(len(targets), -1, width)
    else:
        soft = torch.nn.functional.pad(targets, (0, width - targets.size(1)))[:, None]
    before = lm.get_input_embeddings()(labels.clamp(min=0)[:, :-1])
    logits = lm(inputs_embeds=torch.cat([soft, before], 1)).logits[:, -labels.size(1) :]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED), logits


def gpt2_case(folder, trained, tokenizer, positions, generator):  # noqa: F811
    """The causal-LM family's folder with a GPT-2, and transformers' own class as its reference."""
    torch.manual_seed(7)
    dim, width = 20, 32
    config = GPT2Config(
        vocab_size=16, n_positions=64, n_embd=width, n_layer=2 - bool(positions), n_head=4,
        eos_token_id=1, bos_token_id=1,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    GPT2LMHeadModel(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    fields = json.loads((folder / "config.json").read_text())
    fields |= {"architectures": ["PrefixDecoder"]}
    fields["prefix"] = {"embedding_dim": dim, "tokens": positions, "hidden": 24, "corrector": False, "max_tokens": 10}
    (folder / "config.json").write_text(json.dumps(fields))
    if positions:
        shapes = {"0.weight": (24, dim), "0.bias": (24,), "3.weight": (positions * width, 24), "3.bias": (96,)}
        save_file({f"target.{k}": torch.randn(v, generator=generator) / 3 for k, v in shapes.items()},
                  folder / "projector.safetensors")  # fmt: skip
    inputs = {"targets": torch.randn(ROWS, dim, generator=generator).numpy()}
    labels = torch.randint(2, 16, (ROWS, 6), generator=generator).int()
    labels[0, 3:], labels[1:, -1] = IGNORED, 1
    inputs["labels"] = labels.numpy()

    def read(path, given):
        lm = GPT2LMHeadModel.from_pretrained(path).eval()
        return gpt2_forward(lm, load_file(path / "projector.safetensors") if positions else None, given)

    lm = GPT2LMHeadModel.from_pretrained(folder).eval()
    projector = load_file(folder / "projector.safetensors") if positions else {}
    with torch.no_grad():
        loss, logits = gpt2_forward(lm, projector, inputs)
        ids = np.zeros((ROWS, 1), dtype=np.int32)  # greedy, one token after another, without a cache
        for _ in range(LENGTH - 1):
            given = {"targets": inputs["targets"], "labels": np.pad(ids[:, 1:], ((0, 0), (0, 1)))}
            best = gpt2_forward(lm, projector, given)[1][:, -1].argmax(-1).numpy()
            ended = (ids[:, 1:] == 1).any(1)
            ids = np.concatenate([ids, np.where(ended, 0, best)[:, None].astype(np.int32)], 1)
    parameters = [*lm.parameters(), *projector.values()]
    expected = {"loss": loss.numpy(), "logits": logits.numpy(), "ids1": ids}
    expected["losses"] = steps(lambda given: gpt2_forward(lm, projector, given), parameters, inputs)
    return Case(folder, inputs, expected, trained, read)


@pytest.fixture(scope="module")
def answered(tokenizer, tmp_path_factory):  # noqa: F811
    """A case by its name, with both frameworks' answers, each asked for once. A case has a process of its own."""
    python = os.environ.get("UNEMBED_MINDSPORE_PYTHON")
    if not python:
        pytest.skip("needs MindSpore in an environment of its own: make test-mindspore")
    parity = os.environ.get("UNEMBED_PARITY_DIR")

    @cache
    def answer(name):
        folder, generator = tmp_path_factory.mktemp(name), torch.Generator().manual_seed(3)
        model, trained = folder / "model", folder / "trained"
        if name in REFERENCES:
            if not parity:
                pytest.skip("needs reference checkpoints: set UNEMBED_PARITY_DIR to their folder")
            format, path = REFERENCES[name]
            more = {}
            if name == "reference-vec2text":
                more = {"targets": np.load(Path(parity) / "vec2text" / "reference.npz")["embeddings"], "length": 40}
            case = t5_case(format, Path(parity) / path, trained, generator, train=False, **more)
        elif name in PREFIXES:
            case = gpt2_case(model, trained, tokenizer, PREFIXES[name], generator)
        else:
            format, fields = NETWORKS[name]
            net = make(24, **fields)
            if "tie_word_embeddings" in fields:
                net.t5.lm_head.weight = torch.nn.Parameter(torch.randn(16, 32), requires_grad=False)
            save(format, net, model, tokenizer)
            case = t5_case(format, model, trained, generator)
        np.savez(folder / "inputs.npz", **case.inputs)
        job = {
            "folder": str(case.folder), "inputs": str(folder / "inputs.npz"), "output": str(folder / "output.npz"),
            "beams": [beams for beams in (1, BEAMS) if f"ids{beams}" in case.expected], "max_length": case.length,
            "train": {"weight_decay": 0.01}, "rate": RATE, "steps": STEPS if "losses" in case.expected else 0,
            "trained": str(case.trained),
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job))
        command = [python, str(ROOT / "tests" / "mindspore_worker.py"), str(folder / "job.json")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-3000:]}"
        case.answers = dict(np.load(folder / "output.npz"))
        return case

    return answer


@pytest.mark.parametrize("name", [*NETWORKS, *PREFIXES, *REFERENCES])
def test_logits_loss_and_ids_are_torchs(answered, name):
    case = answered(name)
    assert np.abs(case.answers["logits"] - case.expected["logits"]).max() < 1e-4
    assert abs(case.answers["loss"] - case.expected["loss"]) < 1e-5
    for beams in (1, BEAMS):
        if (ids := case.expected.get(f"ids{beams}")) is None:
            continue
        theirs = case.answers[f"ids{beams}"].reshape(len(ids), -1)
        width = max(theirs.shape[1], ids.shape[1])
        both = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in (theirs, ids)]
        best = slice(None, None, beams)  # of a search the best text of each row
        assert (both[0][best] == both[1][best]).all(), f"{beams} beams"
        if f"logprobs{beams}" in case.expected:
            found = case.answers[f"logprobs{beams}"].ravel()
            assert np.abs(found - case.expected[f"logprobs{beams}"])[best].max() < 1e-4


@pytest.mark.parametrize("name", [*NETWORKS, *PREFIXES])
def test_training_steps_are_torchs_and_the_weights_come_back(answered, name):
    case = answered(name)
    assert case.expected["losses"][-1] < case.expected["losses"][0] - 0.005, "something was learned"
    assert np.abs(case.answers["losses"] - case.expected["losses"]).max() < 2e-5
    loss, logits = case.read(case.trained, case.inputs)
    assert np.abs(case.answers["trained_logits"] - logits.detach().numpy()).max() < 1e-4
    assert loss.item() < case.expected["losses"][-1]
    assert (case.trained / "tokenizer.json").read_bytes() == (case.folder / "tokenizer.json").read_bytes()


def test_dropout_drops_its_share_and_torch_is_nowhere(answered):
    case = answered("vec2text")
    share, largest = case.answers["dropped"]
    assert 0.08 < share < 0.12 and abs(largest - 1 / 0.9) < 1e-3
    assert not case.answers["torch"]


def test_a_vec2text_hypothesizer_writes_what_vec2text_wrote(answered, parity_dir):
    reference = json.loads((parity_dir / "vec2text" / "reference.json").read_text())
    case = answered("reference-vec2text")
    assert case.answers["texts1"].tolist() == reference["results"]["steps=None,beam=0"]["texts"]
