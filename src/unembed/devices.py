"""The one place where a device name becomes a `torch.device`."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from unembed.errors import InputError

if TYPE_CHECKING:
    import torch

ACCELERATORS = ("cuda", "mps", "npu", "xpu")
"""Looked for in this order when no device is named; the CPU is the last resort. ROCm cards answer to `cuda`."""


def _backend(kind: str) -> object | None:
    """torch's module for a kind of accelerator (`torch.cuda`, `torch.npu`, ...), or None when this torch has none."""
    import torch

    if kind == "npu" and not hasattr(torch, "npu") and importlib.util.find_spec("torch_npu") is not None:
        try:
            import torch_npu  # noqa: F401  (its import is what adds torch.npu)
        except (ImportError, OSError, RuntimeError):  # installed, but its driver is not
            return None
    return torch.backends.mps if kind == "mps" else getattr(torch, kind, None)


def _available(kind: str) -> bool:
    """Whether at least one accelerator of this kind can be used here."""
    backend = _backend(kind)
    return backend is not None and bool(backend.is_available())  # type: ignore[attr-defined]


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """Turn what the user wrote into a device that exists on this machine.

    Args:
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`, `"npu"`, `"xpu"`, or None / `"auto"` for the best one there is.

    Raises:
        InputError: the name is unknown, or the device is not there.
    """
    import torch

    if device is None or device == "auto":
        return torch.device(next((kind for kind in ACCELERATORS if _available(kind)), "cpu"))
    name = str(device).strip().lower()
    kind, _, index = name.partition(":")
    if kind not in ("cpu", *ACCELERATORS) or (":" in name and not index.isdecimal()):
        raise InputError(
            f"unknown device '{device}'; use cpu, {', '.join(ACCELERATORS)}, one of them with a number (cuda:1), or "
            "auto"
        )
    if kind == "cpu":
        return torch.device("cpu")
    if not _available(kind):
        raise InputError(
            f"device '{device}' is not available on this machine; use cpu or auto, or install a torch built for {kind}"
        )
    if index:
        counter = getattr(_backend(kind), "device_count", None)
        count = int(counter()) if counter is not None else 1
        if int(index) >= count:
            raise InputError(
                f"device '{device}' does not exist, this machine has {count} of kind {kind}; "
                f"use {kind}:0 to {kind}:{count - 1}"
            )
    return torch.device(name)
