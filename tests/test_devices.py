"""Kinds of hardware. None but the CPU is needed: the source is read, and an Ascend's driver is played."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unembed.devices import ACCELERATORS, accelerator_name, device_of_process, resolve_device, training_device
from unembed.errors import InputError

SOURCE = Path(__file__).parents[1] / "src" / "unembed"

# In the place of torch_npu: two NPUs that can be chosen. What torch does with their name is real; nothing is computed.
DRIVER = """
import types
import torch

npu_fusion_attention = npu_fusion_attention_grad = None  # transformers imports it
npu = types.ModuleType("torch.npu")
npu.is_available = lambda: True
npu.device_count = lambda: 2
npu.current_device = lambda: 0
npu.set_device = lambda device: None
npu.get_device_name = lambda index=None: "Ascend of a play"
npu.is_bf16_supported = lambda: True
torch.utils.rename_privateuse1_backend("npu")
torch._register_device_module("npu", npu)
"""
ASKED = """
import json
from unembed.devices import accelerator_name, device_of_process, resolve_device, training_device
from unembed.errors import InputError
from unembed.training.t5.config import T5TrainConfig
from unembed.training.runs import training_arguments

def refused(function, *arguments):
    try:
        function(*arguments)
    except InputError as error:
        return str(error)

config = T5TrainConfig(output="out", texts=[{"path": "a.txt"}], device="npu", bf16=False, tracker="none")
print(json.dumps({
    "resolved": [str(resolve_device(name)) for name in (None, "auto", "npu", "NPU:1", "cpu")],
    "processes": [device_of_process(None, 3), device_of_process("npu", 2), device_of_process("cpu", 1)],
    "name": accelerator_name(),
    "trained on": [training_device(name) for name in (None, "npu", "cpu")],
    "taken by the Trainer": str(training_arguments(config).device),
    "no such": refused(resolve_device, "npu:2"),
    "by number": refused(training_device, "npu:1"),
    "other": refused(training_device, "cuda"),
}))
"""


def kinds_named(path: Path) -> list[str]:
    """Where a file speaks of a kind of accelerator to torch: `torch.cuda`, `x.npu()`, `device.type == "mps"`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[object] = []
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.Compare):
            names = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
        elif isinstance(node, ast.ImportFrom):
            names = (node.module or "").split(".")
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        found += [
            f"{path.relative_to(SOURCE)}:{node.lineno} {name}" for name in names if name in (*ACCELERATORS, "hip")
        ]
    return found


def test_one_module_alone_knows_kinds_of_accelerators():
    files = sorted(path for path in SOURCE.rglob("*.py") if path.name != "devices.py")
    assert not [place for path in files for place in kinds_named(path)]
    assert {"cuda", "npu"} <= {place.split()[1] for place in kinds_named(SOURCE / "devices.py")}, "nothing is found"


def test_an_ascend_is_chosen_by_all_that_choose(tmp_path):
    """With a driver that is played: names, numbers, processes, and what transformers' Trainer takes. That
    anything computes on an NPU, it does not show."""
    (tmp_path / "torch_npu.py").write_text(DRIVER, encoding="utf-8")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{SOURCE.parent}", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    done = subprocess.run([sys.executable, "-c", ASKED], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["resolved"] == ["npu", "npu", "npu", "npu:1", "cpu"]
    assert said["processes"] == ["npu:1", "npu:0", "cpu"]
    assert said["name"] == "Ascend of a play"
    assert said["trained on"] == [None, None, "cpu"]
    assert said["taken by the Trainer"].startswith("npu")
    assert "this machine has 2" in said["no such"]
    assert "ASCEND_RT_VISIBLE_DEVICES" in said["by number"]
    assert "'cuda' is not available" in said["other"]


def test_a_driver_that_does_not_load_is_no_device(tmp_path):
    """torch_npu is installed, and the libraries of CANN are not: it fails on import."""
    (tmp_path / "torch_npu.py").write_text("raise ImportError('libhccl.so: cannot open')", encoding="utf-8")
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{SOURCE.parent}", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    asked = "from unembed.devices import resolve_device as r\nprint(r('auto'))\n"
    program = asked + "try: r('npu')\nexcept Exception as error: print(error)"
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    device, message = done.stdout.splitlines()
    assert device != "npu" and "device 'npu' is not available on this machine" in message


@pytest.mark.parametrize("name", ["gpu", "npu:x", "cuda:", "ascend", ""])
def test_an_unknown_device(name):
    with pytest.raises(InputError, match="unknown device"):
        resolve_device(name)


def test_a_machine_without_accelerators():
    if resolve_device(None).type != "cpu":
        pytest.skip("this machine has an accelerator")
    assert accelerator_name() is None
    assert [device_of_process(name, 1) for name in (None, "auto", "cuda", "cpu")] == [None, "auto", "cuda", "cpu"]
    assert [training_device(name) for name in (None, "auto", "cpu")] == [None, None, "cpu"]
    with pytest.raises(InputError, match="not available"):
        training_device("npu")
