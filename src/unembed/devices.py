"""The one place where a device name becomes a `torch.device`, and where the CPU's memory is spoken of."""

from __future__ import annotations

import ctypes
import importlib.util
from typing import TYPE_CHECKING

from unembed.errors import InputError

if TYPE_CHECKING:
    import torch

ACCELERATORS = ("cuda", "mps", "npu", "xpu")
"""Looked for in this order when no device is named; the CPU is the last resort. ROCm cards answer to `cuda`."""


_MALLOPT = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_TOP_PAD": (-2, 1 << 30), "M_ARENA_MAX": (-8, 1)}
"""glibc's numbers of the settings, and their values: one heap, grown by a gigabyte at a time and never given back."""


def keep_freed_memory() -> bool:
    """Have this process keep the memory that it frees; returns whether the C library can (glibc).

    A training step frees its large blocks at its end and needs them again in the next: given back to the system and
    fetched anew, page by page, they cost a fifth of the step on a CPU (docs/lab.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return all([mallopt(number, value) for number, value in _MALLOPT.values()])


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
