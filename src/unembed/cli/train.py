"""`unembed train`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unembed.cli.console import console, typed
from unembed.errors import InputError, require
from unembed.training.config import TrainConfig
from unembed.training.run_config import RunConfig

TRANSLATIONS = {
    "--from_vec2text_args": "a whole vec2text command line, in quotes: print it as a recipe and do nothing else",
    "--from_nanov2t_config": "a YAML file of nanoV2T: print it as a recipe and do nothing else",
}


def train(config: TrainConfig | RunConfig) -> int:
    """Train an inverter; see TrainConfig and the RunConfig of each family for the keys of a recipe."""
    from unembed.devices import keep_freed_memory

    require("accelerate", "train")
    if config.tracker != "none":
        require(config.tracker, "wandb" if config.tracker == "wandb" else "train")
    keep_freed_memory()
    if isinstance(config, RunConfig):
        from unembed.training import families

        made = families.train(config.family, config)
        if getattr(config, "export", None):
            console().print(f"exported to {made}: train it with python -m unembed.backends.mindspore train {made}")
            return 0
        model = config.model_name
    else:
        from unembed.training.loop import train as run

        run(config)
        model = f"{config.output}/model"
    if os.environ.get("RANK", "0") != "0":  # torchrun's: one process speaks for all
        return 0
    console().print(
        f'the model is in {config.output}/model; try: unembed invert --model {model} --text "…"', markup=False
    )
    return 0


def config_class(arguments: Sequence[str]) -> type[TrainConfig] | type[RunConfig]:
    """What kind of recipe a command line has: one with a `family`, as a flag or in a file, is for a family that is
    trained on transformers' Trainer, any other for the native network."""
    named = typed(arguments, "--family") or [
        str(keys["family"]) for path in typed(arguments, "--config") if "family" in (keys := _keys(path))
    ]
    if not named:
        return TrainConfig
    from unembed.training import families

    return families.config_class(named[-1])


def translated(arguments: Sequence[str]) -> str | None:
    """The recipe that a foreign command line or file becomes, or None where none is asked for."""
    from unembed.training.t5 import foreign

    line, file = (typed(arguments, flag) for flag in TRANSLATIONS)
    if line:
        return foreign.as_yaml(*foreign.from_vec2text(line[-1]))
    if file:
        if not (keys := _keys(file[-1])):
            raise InputError(f"{file[-1]} holds no keys: give a YAML file of nanoV2T")
        return foreign.as_yaml(*foreign.from_nanov2t(keys))
    return None


def _keys(path: str) -> dict[str, Any]:
    """The keys of a recipe file; the parser says what is wrong with one that is none."""
    import yaml

    try:
        keys = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return keys if isinstance(keys, dict) else {}
