"""`unembed train`."""

from __future__ import annotations

from unembed.training.config import TrainConfig


def train(config: TrainConfig) -> int:
    """Train an inverter; see TrainConfig for the keys of a recipe."""
    from unembed.errors import require

    require("accelerate", "train")
    if config.tracker == "tensorboard":
        require("tensorboard", "train")
    elif config.tracker == "wandb":
        require("wandb", "wandb")
    from unembed.cli.console import console
    from unembed.devices import keep_freed_memory
    from unembed.training.loop import train as run

    keep_freed_memory()
    run(config)
    console().print(
        f'the model is in {config.output}/model; try: unembed invert --model {config.output} --text "…"', markup=False
    )
    return 0
