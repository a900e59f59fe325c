"""Recipes of vec2text and nanoV2T as ours: their flags and keys → those of T5TrainConfig, with what is different said.

The two tables are the single source of the translation, of its remarks and of the tables in docs/train-t5.md.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from unembed.errors import InputError
from unembed.training.t5.config import T5TrainConfig


@dataclass(frozen=True)
class Key:
    """What becomes of one flag or key."""

    ours: str = ""
    """Our key, `arguments.NAME` for one of transformers' Trainer, or nothing."""
    note: str = ""
    """What is different, or why there is nothing."""
    convert: Callable[[Any], Any] = lambda value: value
    says: bool = False
    """Whether the note belongs into a translated recipe too."""


UNUSED = Key(note="does nothing in the original", says=True)
ALWAYS = Key(note="always so")
MISSING = Key(note="not offered here", says=True)
SCALED = ("warmup_steps", "logging_steps", "eval_steps", "save_steps")
"""vec2text multiplies them by 32 / per_device_train_batch_size after it has read them."""
SWITCHES = {field.name for field in dataclasses.fields(T5TrainConfig) if field.type == "bool"}
SCALE = "times 32 / batch size, as the original does silently"
EMBEDDERS = {
    "gtr_base": "gtr-base-raw",
    "gtr_base_st": "gtr-base",
    "gtr_large": "sentence-transformers/gtr-t5-large#raw",
    "gte_base": "thenlper/gte-base",
    "paraphrase-distilroberta": "paraphrase-distilroberta",
    "contriever": "facebook/contriever",
}
"""vec2text's names of embedders → ours."""


def _dataset(name: str) -> list[dict[str, str]]:
    known = {"jxm/nq_corpus_dpr": "nq", "Tevatron/msmarco-passage-corpus": "msmarco"}
    name = known.get(name, name)
    return [{"path": name if name in ("nq", "msmarco") or ":" in name else f"hf:{name}"}]


def _tracker(value: Any) -> str:  # noqa: ANN401  (a flag, or a name)
    name = value[0] if isinstance(value, list) and value else value
    return {True: "wandb", False: "none", "wandb": "wandb", "tensorboard": "tensorboard"}.get(name, "none")


def _stage(experiment: str) -> str:
    if experiment not in ("inversion", "corrector"):
        raise InputError(f"vec2text's experiment '{experiment}' is not offered here: inversion and corrector are")
    return experiment


VEC2TEXT: dict[str, Key] = {
    "experiment": Key("stage", "`inversion` or `corrector`; the others are not offered", _stage),
    "model_name_or_path": Key("backbone", "any size of T5"),
    "embedder_model_name": Key(
        "embedder", "`gtr_base` is `gtr-base-raw`, `gtr_base_st` is `gtr-base`",
        lambda name: EMBEDDERS.get(name, name),
    ),
    "embedder_model_api": Key("embedder", "`openai:NAME`", lambda name: f"openai:{name}"),
    "embedder_torch_dtype": Key("embedder_dtype"),
    "embedder_gaussian_noise_level": Key("noise"),
    "use_frozen_embeddings_as_input": Key("precompute", "no GPU is needed for it; a corrector's are always"),
    "num_repeat_tokens": Key("num_repeat_tokens"),
    "max_seq_length": Key("max_seq_length"),
    "encoder_dropout_disabled": Key("encoder_dropout_disabled"),
    "decoder_dropout_disabled": Key("decoder_dropout_disabled"),
    "corrector_ignore_hypothesis_embedding": Key("ignore_hypothesis_embedding"),
    "corrector_model_from_pretrained": Key("hypothesizer", "a folder or a hub id"),
    "corrector_model_alias": Key("hypothesizer", "write its folder: an alias is a path of its author's", says=True),
    "dataset_name": Key("texts", "`nq`, `msmarco`; for others `hf:NAME` or files", _dataset),
    "max_eval_samples": Key("max_eval_samples", "held out from the end of `texts`, or from `eval_texts`"),
    "use_less_data": Key("use_less_data", "-1 is left out", lambda n: n if n and n > 0 else None),
    "output_dir": Key("output"),
    "num_train_epochs": Key("epochs"),
    "max_steps": Key("max_steps", "-1 is left out", lambda n: n if n > 0 else None),
    "learning_rate": Key("learning_rate"),
    "lr_scheduler_type": Key("lr_scheduler"),
    "warmup_steps": Key("warmup_steps", SCALE),
    "logging_steps": Key("logging_steps", SCALE),
    "eval_steps": Key("eval_steps", f"{SCALE}; lowered to save_steps where that is no multiple of it"),
    "save_steps": Key("save_steps", SCALE),
    "save_total_limit": Key("keep"),
    "per_device_train_batch_size": Key("batch_size"),
    "per_device_eval_batch_size": Key("eval_batch_size"),
    "gradient_accumulation_steps": Key("gradient_accumulation_steps"),
    "weight_decay": Key("weight_decay"),
    "adam_epsilon": Key("adam_epsilon"),
    "max_grad_norm": Key("max_grad_norm"),
    "group_by_length": Key("group_by_length"),
    "bf16": Key("bf16"),
    "seed": Key("seed"),
    "use_wandb": Key("tracker", "1 is `wandb`", _tracker),
    "report_to": Key("tracker", "", _tracker),
    "exp_name": Key("arguments.run_name"),
    "exp_group_name": Key(note="the environment variable WANDB_RUN_GROUP", says=True),
    "embedder_no_grad": ALWAYS,
    "do_eval": ALWAYS,
    "load_best_model_at_end": ALWAYS,
    "evaluation_strategy": Key(note="from eval_steps; the original's stops silently on current transformers"),
    "overwrite_output_dir": Key(note="a run goes on where it was; choose another output for a new one", says=True),
    "ddp_find_unused_parameters": ALWAYS,
    **dict.fromkeys(("model_type", "config_overrides", "config_name", "tokenizer_name", "cache_dir"), UNUSED),
    **dict.fromkeys(("model_revision", "freeze_strategy", "cheat_on_train_hypotheses", "steps_per_epoch"), UNUSED),
    "embedding_transform_strategy": Key(note="`repeat` is the only one"),
    **dict.fromkeys(("embedding_zero_except_topk", "embeddings_from_layer_n", "embedder_fake_with_zeros"), MISSING),
    **dict.fromkeys(("use_lora", "mock_embedder", "torch_dtype"), MISSING),
}  # fmt: skip
VEC2TEXT_DEFAULTS: dict[str, Any] = {
    "experiment": "inversion", "dataset_name": "msmarco", "embedder_model_name": "gtr_base", "max_seq_length": 128,
    "use_frozen_embeddings_as_input": False, "max_eval_samples": 1000, "num_train_epochs": 30,
    "learning_rate": 2e-5, "lr_scheduler_type": "linear", "per_device_train_batch_size": 128, "bf16": False,
    "warmup_steps": 4000, "logging_steps": 400, "eval_steps": 40000, "save_steps": 4000,
}  # fmt: skip
"""Where its defaults are others than ours."""

NANOV2T: dict[str, Key] = {
    "workdir": Key(note="part of `output`"),
    "exp_name": Key("output", "", lambda name: f"runs/{name}"),
    "exp_note": UNUSED,
    "project_name": Key(note="the environment variable WANDB_PROJECT", says=True),
    "task_type": Key(note="`stage` follows from draft_dir"),
    "draft_dir": Key("stage", "`corrector`; `hypothesizer` in its place writes the drafts", lambda _: "corrector"),
    "project_draft_embedding": Key(note="with stage `corrector` always"),
    "layer_norm_after_projection": Key("layer_norm", "", bool),
    "expanding_factor": Key("num_repeat_tokens"),
    "generator_name_or_path": Key("backbone", "any T5, not only t5-base"),
    "embedder_name_or_path": Key("embedder", "any, not only GTR"),
    "dataset_name_or_path": Key("texts", "`jxm/nq_corpus_dpr` is `nq`", _dataset),
    "max_train_samples": Key("use_less_data"),
    "max_eval_samples": Key("max_eval_samples", "held out from the end of `texts`, or from `eval_texts`"),
    "max_seq_length": Key("max_seq_length"),
    "per_device_train_batch_size": Key("batch_size"),
    "gradient_accumulation_steps": Key("gradient_accumulation_steps"),
    "learning_rate": Key("learning_rate"),
    "lr_scheduler_type": Key("lr_scheduler"),
    "warmup_ratio": Key("warmup_steps", "below 1 it is a share of all steps"),
    "weight_decay": Key("weight_decay"),
    "clip_grad_norm": Key("max_grad_norm"),
    "num_train_epochs": Key("epochs"),
    "max_train_steps": Key("max_steps"),
    "seed": Key("seed"),
    "checkpointing_steps": Key(note="after each epoch, the best kept: eval_steps: 0, save_steps: 0"),
    "logging_steps": Key("logging_steps"),
    "torch_compile": Key("arguments.torch_compile"),
}  # fmt: skip


def from_vec2text(command: str) -> tuple[dict[str, Any], list[str]]:
    """A whole vec2text command line → a recipe, and remarks on what could not go into it or does nothing.

    Raises InputError for an experiment that is not offered, and for a line without flags.
    """
    given = {**VEC2TEXT_DEFAULTS, **_flags(command)}
    if given.get("embedder_model_api"):
        given.pop("embedder_model_name")
    scale = 32 / given["per_device_train_batch_size"]
    for name in SCALED:
        given[name] = max(1, round(given[name] * scale))
    if given["save_steps"] % given["eval_steps"]:
        given["eval_steps"] = given["save_steps"]
    recipe, remarks = _translate(VEC2TEXT, given)
    if recipe["stage"] == "corrector":
        recipe["precompute"] = not recipe.get("noise")
        if not recipe.get("hypothesizer"):
            remarks.append("hypothesizer: not named; give the folder of the inversion model")
    return {"output": "saves", **recipe, "family": "vec2text"}, remarks


def from_nanov2t(keys: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """nanoV2T's YAML keys → a recipe and remarks, as `from_vec2text`."""
    recipe, remarks = _translate(NANOV2T, {name: value for name, value in keys.items() if value is not None})
    if recipe.get("stage") == "corrector":
        remarks.append("hypothesizer: not named; give the folder of the stage-1 model")
    return {"output": "runs/nanov2t", "eval_steps": 0, "save_steps": 0, **recipe, "family": "nanov2t"}, remarks


def as_yaml(recipe: Mapping[str, Any], remarks: list[str]) -> str:
    """A recipe file, the remarks as comments in front."""
    return "".join(f"# {remark}\n" for remark in remarks) + yaml.safe_dump(dict(recipe), sort_keys=False)


def markdown(table: Mapping[str, Key]) -> str:
    """The table theirs → ours as the documentation shows it."""
    rows = (f"| `{name}` | {f'`{key.ours}`' if key.ours else '–'} | {key.note} |" for name, key in table.items())
    return "\n".join(["| theirs | ours | |", "|---|---|---|", *rows])


def _translate(table: Mapping[str, Key], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    from transformers import TrainingArguments

    trainer = {field.name for field in dataclasses.fields(TrainingArguments)}
    recipe: dict[str, Any] = {}
    remarks: list[str] = []
    for name, value in given.items():
        key = table.get(name) or (Key(f"arguments.{name}") if name in trainer else None)
        if key is None:
            remarks.append(f"{name}: unknown, left out")
            continue
        if key.says:
            remarks.append(f"{name}: {key.note}")
        if not key.ours:
            continue
        value = key.convert(value)
        if key.ours in SWITCHES:
            value = bool(value)
        if key.ours.startswith("arguments."):
            recipe.setdefault("arguments", {})[key.ours.removeprefix("arguments.")] = value
        elif value is not None:
            recipe[key.ours] = value
    return recipe, remarks


def _flags(command: str) -> dict[str, Any]:
    """The flags after the program (`run.py`, `-m vec2text.run`) of a command line, their values as YAML reads them."""
    try:
        words = shlex.split(command.replace("\\\n", " "))
    except ValueError as error:
        raise InputError(f"the command line cannot be read ({error}): check its quotes") from error
    program = max((i for i, word in enumerate(words) if word.endswith(("run.py", "vec2text.run"))), default=-1)
    found: dict[str, Any] = {}
    name = None
    for word in words[program + 1 :]:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            found[name] = _value(value) if equals else True
        elif name is not None:
            found[name] = _value(word)
    if not found:
        raise InputError("the command line holds no flags: give all of it, in quotes")
    return found


def _value(text: str) -> Any:  # noqa: ANN401
    """A number (also 1e-3, which YAML takes for text), true or false, or text."""
    try:
        return float(text) if "." not in text and not text.isdecimal() else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return {"true": True, "false": False}.get(text.lower(), text)
