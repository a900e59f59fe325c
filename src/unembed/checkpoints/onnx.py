"""Models that were exported as ONNX: opened like any other, and run by onnxruntime."""

from __future__ import annotations

from pathlib import Path

import torch

from unembed.checkpoints.tensors import architecture
from unembed.errors import InputError, require
from unembed.models.onnx_runtime import ARCHITECTURE, OnnxModel

PROVIDERS = {"cuda": "CUDAExecutionProvider", "npu": "CANNExecutionProvider", "mps": "CoreMLExecutionProvider"}
CPU = "CPUExecutionProvider"


def recognise(folder: Path) -> bool:
    """Whether `folder` looks like an export."""
    return architecture(folder) == ARCHITECTURE


def load(folder: Path, device: torch.device, dtype: torch.dtype | None = None) -> OnnxModel:
    """Open an export, on `device` where the onnxruntime that is installed has it, otherwise on the CPU."""
    if dtype not in (None, torch.float32):
        raise InputError(f"{folder} was exported in float32: leave out model_dtype")
    wanted = PROVIDERS.get(device.type, CPU)
    known = require("onnxruntime", "onnx").get_available_providers()
    return OnnxModel.load(folder, providers=[wanted, CPU] if wanted in known and wanted != CPU else [CPU])
