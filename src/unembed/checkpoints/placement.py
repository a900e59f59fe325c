"""Where a network's tensors go: on one device, or, by `accelerate`, on several, in memory and on disk.

Only the T5 is spread; the projectors, which are small, stay on the main device. What goes to "disk" is not copied: it
is read from the checkpoint's own safetensors files each time it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unembed.checkpoints.tensors import Weights
from unembed.errors import CheckpointError, InputError, first_line, require

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

DISK = "disk"


@dataclass(frozen=True)
class Placement:
    """The wish: one device, or a map of several."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    device_map: str | Mapping[str, Any] | None = None
    """None puts everything on `device`; "auto" fills the accelerators, then the CPU's memory, then the disk; a mapping
    says it for each module of the T5 ("encoder", "decoder.block.3", …)."""
    max_memory: Mapping[Any, Any] | None = None
    """For "auto": what each network may take of each device, such as {0: "20GiB", "cpu": "60GiB"}."""

    def plan(self, t5: T5ForConditionalGeneration) -> Plan:
        """For a T5 on the meta device. Raises MissingExtra without accelerate, InputError for a map that is none."""
        if self.device_map is None:
            return Plan(self.device)
        require("accelerate", "train")
        from accelerate import infer_auto_device_map

        found: Mapping[str, Any] | str = self.device_map
        if found == "auto":
            t5.tie_weights()  # what is tied goes to one place
            limits = None if self.max_memory is None else dict(self.max_memory)
            found = infer_auto_device_map(
                t5, max_memory=limits, no_split_module_classes=t5._no_split_modules, dtype=self.dtype
            )
        if isinstance(found, str):
            raise InputError(f"unknown device_map '{found}': use auto, or a mapping of module names to devices")
        try:
            modules = {name: DISK if where == DISK else str(torch.device(where)) for name, where in found.items()}
        except (RuntimeError, TypeError) as error:
            raise InputError(f"device_map names a device that there is not ({first_line(error)})") from error
        main = next((where for where in modules.values() if where not in ("cpu", DISK)), "cpu")
        return Plan(torch.device(main), modules)


@dataclass(frozen=True)
class Plan:
    """What goes where."""

    main: torch.device
    modules: dict[str, str] = field(default_factory=dict)
    """Of the T5: name of a module → name of a device or "disk". Empty when everything is on the main device."""

    def device_of(self, name: str) -> torch.device | None:
        """Where a tensor of the network lies; None is the disk."""
        if not name.startswith("t5.") or not self.modules:
            return self.main
        path = name.removeprefix("t5.")
        while path not in self.modules and path:
            path = path.rpartition(".")[0]
        if path not in self.modules:
            raise InputError(f"device_map says nothing of {name.removeprefix('t5.')}: name every module of the T5")
        where = self.modules[path]
        return None if where == DISK else torch.device(where)

    def dispatch(self, t5: T5ForConditionalGeneration, tensors: Weights, folder: Path) -> None:
        """Have accelerate move what is needed to where it is computed. Raises CheckpointError when a part that does not
        fit is in a .bin file, from which no single tensor can be read."""
        if not self.modules:
            return
        from accelerate import dispatch_model

        index: dict[str, dict[str, str]] = {}
        for name, parameter in t5.state_dict().items():
            if self.device_of(f"t5.{name}") is None:
                entry = tensors.entries.get(name) or tensors.entries["shared.weight"]
                if entry.file.suffix != ".safetensors":
                    raise CheckpointError(
                        f"{folder} does not fit into memory, and only safetensors can be read piece by piece: "
                        f"write it anew with unembed models convert {folder} DEST, in its own format"
                    )
                index[name] = {
                    "safetensors_file": str(entry.file), "weight_name": entry.name,
                    "dtype": str(parameter.dtype).removeprefix("torch."),
                }  # fmt: skip
        dispatch_model(t5, self.modules, main_device=str(self.main), offload_index=index or None)
        t5.hf_device_map = self.modules
