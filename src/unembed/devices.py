"""The one place that speaks of kinds of hardware: device names, what an accelerator can do, memory. All else takes a
`torch.device` as it comes, so that a new kind of accelerator is a matter of this file alone."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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


def _backend(kind: str) -> Any:  # noqa: ANN401  (a module)
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
    return backend is not None and bool(backend.is_available())


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


def training_device(device: str | None) -> str | None:
    """What a run may ask for: `accelerate` gives each process an accelerator of the one kind there is, or the CPU.

    Raises InputError for another kind, or for one accelerator by its number.
    """
    if device in (None, "auto", "cpu"):
        return None if device == "auto" else device
    found = resolve_device(device)
    if found.index is not None or found.type != resolve_device(None).type:
        raise InputError(
            f"device '{device}': a run takes the accelerators that it can see, one for each process; leave device out, "
            "and hide the others by the driver's variable (CUDA_VISIBLE_DEVICES, ASCEND_RT_VISIBLE_DEVICES)"
        )
    return None if found.type != "cpu" else "cpu"


def device_of_process(name: str | None, process: int) -> str | None:
    """An accelerator of its own for each process of this machine where one was asked for without a number, or none was
    named and there are some."""
    kind = resolve_device(None).type if name in (None, "auto") else str(name).strip().lower()
    if kind not in ACCELERATORS or not _available(kind):
        return name
    count = getattr(_backend(kind), "device_count", None)
    return name if count is None else f"{kind}:{process % count()}"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 natively, as far as is known of it."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def accelerator_name() -> str | None:
    """The name of the first accelerator, such as "NVIDIA H200"; its kind where it does not tell; None without one."""
    kind = resolve_device(None).type
    if kind == "cpu":
        return None
    name = getattr(_backend(kind), "get_device_name", None)
    return kind if name is None else str(name(0))


def release_memory() -> None:
    """Give the memory that torch keeps for later back to the accelerator, where there is one."""
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


@contextmanager
def own_random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """For calls that draw from torch's global generators: seeded inside, and left as they were."""
    import torch

    there = [] if device.type in ("cpu", "mps") else [device]  # torch.mps has one generator, and no number for it
    with torch.random.fork_rng(there, device_type=device.type if there else "cuda"):
        torch.manual_seed(seed)
        yield
