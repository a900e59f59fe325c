"""Recipes of vec2text and nanoV2T become ours, and ours say what was published."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from unembed.training.t5 import foreign
from unembed.training.t5.config import T5TrainConfig

ROOT = Path(__file__).parents[1]


def test_a_vec2text_command_line_is_translated(command, refused):
    line = (
        "torchrun --nproc_per_node 2 vec2text/run.py --per_device_train_batch_size 64 --max_seq_length 32 "
        "--model_name_or_path t5-small --dataset_name nq --embedder_model_name gtr_base --embedder_no_grad True "
        "--eval_steps 20000 --warmup_steps 10000 --save_steps 2000 --bf16=1 --use_wandb=1 --learning_rate 1e-3 "
        "--use_frozen_embeddings_as_input True --experiment inversion --lr_scheduler_type constant_with_warmup "
        "--freeze_strategy none --use_less_data -1 --fsdp full_shard --nonsense 3 --output_dir ./saves/x"
    )
    code, out, _ = command("train", "--from-vec2text-args", line)
    recipe = yaml.safe_load(out)
    assert code == 0
    config = T5TrainConfig.from_dict(recipe)
    assert (config.family, config.stage, config.output, config.backbone) == (
        "vec2text", "inversion", "./saves/x", "t5-small"
    )  # fmt: skip
    assert (config.batch_size, config.warmup_steps, config.save_steps, config.eval_steps) == (64, 5000, 1000, 1000)
    assert config.embedder == "gtr-base-raw" and config.bf16 is True and config.tracker == "wandb"
    assert config.learning_rate == 1e-3 and config.use_less_data is None and config.precompute
    assert config.epochs == 30 and config.arguments == {"fsdp": "full_shard"}, "what it does not name is as there"
    assert "# nonsense: unknown, left out\n" in out and "# freeze_strategy: does nothing in the original\n" in out
    code, out, _ = command("train", "--from_vec2text_args=run.py --experiment corrector --corrector_model_alias a")
    assert yaml.safe_load(out)["hypothesizer"] == "a" and yaml.safe_load(out)["precompute"]
    api = yaml.safe_load(foreign.as_yaml(*foreign.from_vec2text("--embedder_model_api text-embedding-ada-002")))
    assert api["embedder"] == "openai:text-embedding-ada-002"
    assert "not offered" in refused("train", "--from-vec2text-args", "--experiment inversion_bow")
    assert "no flags" in refused("train", "--from-vec2text-args", "python run.py")
    assert "quotes" in refused("train", "--from-vec2text-args", "run.py --exp_name 'a")


def test_nanov2t_keys_are_translated(command, refused, tmp_path):
    theirs = {
        "draft_dir": "x", "embedder_name_or_path": "sentence-transformers/gtr-t5-base", "expanding_factor": 16,
        "dataset_name_or_path": "jxm/nq_corpus_dpr", "warmup_ratio": 0.0053, "per_device_train_batch_size": 512,
        "layer_norm_after_projection": True, "clip_grad_norm": 1.0, "max_train_steps": None, "exp_name": "s2",
        "torch_compile": True,
    }  # fmt: skip
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(theirs))
    code, out, _ = command("train", "--from-nanov2t-config", tmp_path / "theirs.yaml")
    config = T5TrainConfig.from_dict({**yaml.safe_load(out), "hypothesizer": "runs/s1"})
    assert code == 0 and "# hypothesizer: not named" in out
    assert (config.family, config.stage, config.warmup_steps, config.eval_steps) == ("nanov2t", "corrector", 0.0053, 0)
    assert config.texts[0].path == "nq" and config.arguments == {"torch_compile": True}
    assert "holds no keys" in refused("train", "--from-nanov2t-config", tmp_path / "absent.yaml")


def test_every_translated_key_is_a_key_of_ours():
    for table in (foreign.VEC2TEXT, foreign.NANOV2T):
        for name, key in table.items():
            assert key.ours.startswith("arguments.") or key.ours in {"", *T5TrainConfig.__dataclass_fields__}, name
            assert key.ours or key.note, name


@pytest.mark.parametrize("table", ["VEC2TEXT", "NANOV2T"])
def test_the_documentation_shows_the_tables(table):
    page = (ROOT / "docs" / "train-t5.md").read_text(encoding="utf-8")
    assert foreign.markdown(getattr(foreign, table)) in page


def test_the_recipes_are_sound_and_those_published():
    found = {path.relative_to(ROOT / "recipes"): yaml.safe_load(path.read_text(encoding="utf-8"))
             for family in ("vec2text", "nanov2t") for path in (ROOT / "recipes" / family).glob("*.yaml")}  # fmt: skip
    configs = {str(path): T5TrainConfig.from_dict(keys) for path, keys in found.items()}
    assert len(configs) == 6
    line = (
        "run.py --per_device_train_batch_size 128 --max_seq_length 32 --dataset_name nq --embedder_model_name gtr_base "
        "--num_train_epochs 100 --max_eval_samples 500 --eval_steps 20000 --warmup_steps 10000 --bf16=1 "
        "--use_frozen_embeddings_as_input True --lr_scheduler_type constant_with_warmup --learning_rate 0.001 "
        "--save_steps 2000"
    )
    theirs, _ = foreign.from_vec2text(line)
    ours = configs["vec2text/gtr-inversion.yaml"]
    same = ("batch_size", "warmup_steps", "learning_rate", "lr_scheduler", "epochs", "max_seq_length", "embedder")
    assert {key: getattr(ours, key) for key in same} == {key: theirs[key] for key in same}
    assert ours.save_steps == theirs["save_steps"] and ours.eval_steps == theirs["eval_steps"]
    second = configs["nanov2t/stage2.yaml"]
    assert (second.learning_rate, second.batch_size, second.epochs) == (2.5e-3, 512, 150)
