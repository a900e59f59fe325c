"""The recipes' own scripts, run as a user runs them."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest
import yaml

from unembed.training.config import TrainConfig

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes" / "minilm"
RECIPE = """
corpora:
  - {path: en/a, weight: 1}
  - {path: en/b, weight: 1}
heldout: [heldout/h.txt]
"""
LONG = "one two three four five six seven eight nine ten eleven twelve"


@pytest.fixture
def prepare(tmp_path):
    """Run prepare.py on tmp_path/raw; returns the exit code and what it said."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for name, text in {"en/a.txt": "", "heldout/h.txt": f"Before that, {LONG.upper()}!\nshort one\n"}.items():
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_text(text)

    def run(*arguments):
        command = [sys.executable, str(RECIPES / "prepare.py"), tmp_path / "raw", tmp_path / "out"]
        command += ["--config", tmp_path / "recipe.yaml", *arguments]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run


def test_prepared_text_has_no_doubles_and_nothing_held_out(prepare, tmp_path):
    raw = tmp_path / "raw" / "en"
    kept = [f"Text number {i} is about something of its own." for i in range(50)]
    (raw / "a.txt").write_text("\n".join([*kept, kept[3].upper(), f"see: {LONG} and more", "Short one"]) + "\n")
    with lzma.open(raw / "b.txt.xz", "wt") as file:
        file.write("alpha\nbeta\n")
    code, said = prepare()
    assert code == 0, said
    assert json.loads((tmp_path / "out" / "en" / "a" / "manifest.json").read_text()) == {
        "source": "a.txt", "read": 53, "kept": 50, "doubles": 1, "held_out": 2,
    }  # fmt: skip
    with lzma.open(tmp_path / "out" / "en" / "a" / "000.txt.xz", "rt") as file:
        lines = file.read().splitlines()
    assert sorted(lines) == sorted(kept) and lines != kept, "all there, and shuffled"

    (raw / "a.txt").write_text("something else\n")
    assert prepare() == (0, ""), "what is complete is not made again"
    (tmp_path / "out" / "en" / "b" / "manifest.json").unlink()
    (raw / "b.txt.xz").unlink()
    code, said = prepare()
    assert code == 2 and "en/b.txt" in said and "missing" in said


def test_the_recipes_are_sound():
    """`unembed train` accepts every one of them, and a compact checkpoint of the large one fits in 64 MiB."""
    from unembed.models.native import NativeConfig, NativeNetwork
    from unembed.training.config import TrainConfig

    for path in sorted(RECIPES.glob("*.yaml")):
        assert TrainConfig.from_dict(yaml.safe_load(path.read_text(encoding="utf-8"))).output
    sizes = yaml.safe_load((RECIPES / "gpu.yaml").read_text(encoding="utf-8"))["model"]
    net = NativeNetwork(NativeConfig(384, **{"reader_width": 1024, **sizes}))
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert parameters <= 70e6 and parameters * 1.01 < 64 * 2**20


def test_every_arm_of_the_ablations_is_a_recipe_and_differs_from_the_first():
    from unembed.training.config import TrainConfig

    folder = ROOT / "benchmarks"
    bench = run_path(str(folder / "bench_training.py"))
    plan = yaml.safe_load((folder / "ablations.yaml").read_text(encoding="utf-8"))
    merged = [bench["merged"](plan["base"], change) | {"output": "runs/x"} for change in plan["arms"].values()]
    first, *others = map(TrainConfig.from_dict, merged)
    assert plan["arms"]["as it is"] == {} and first.model.reader_width and first.corpora
    assert len({config.identity for config in [first, *others]}) == len(plan["arms"])


def test_the_stages_of_the_shipped_weights_change_one_recipe():
    """Each stage is cpu.yaml with its own changes on top, as recipes/minilm/cpu.sh gives them."""
    from unembed.cli.main import build_parser

    parser = build_parser()
    first = parser.parse_args(["train", "--config", str(RECIPES / "cpu.yaml")])["train"]
    for path in sorted((RECIPES / "stages").glob("[0-9].yaml")):
        configs = ["--config", str(RECIPES / "cpu.yaml"), "--config", str(path)]
        stage = parser.parse_args(["train", *configs, "--init_from", "x"])["train"]
        assert stage.model.d_model == first.model.d_model and stage.seed != first.seed
        changed = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert all(getattr(stage.model, key) == value for key, value in changed.get("model", {}).items())
        assert stage.optimiser.muon_lr == changed["optimiser"]["muon_lr"]
    guide = ["--config", str(RECIPES / "stages" / "guide.yaml"), "--init_from", "x"]
    guided = parser.parse_args(["train", *configs, *guide])["train"]  # on top of the last stage
    assert guided.guide_spans and not guided.max_steps and guided.spans == stage.spans and guided.model == stage.model
    corrector = ["--config", str(RECIPES / "stages" / "corrector.yaml"), "--init_from", "x"]
    corrected = parser.parse_args(["train", *configs, *corrector])["train"]
    assert corrected.objective.corrector and corrected.corpora == stage.corpora and corrected.heldout == stage.heldout
    sizes = [vars(part.model) | {"reader_width": None} for part in (corrected, stage)]
    assert sizes[0] == sizes[1]


def test_packing_writes_a_card_with_history_figures_and_calibration(tmp_path):
    """The shipped weights packed again are the same file; the card says what is known."""
    shipped = ROOT / "src" / "unembed" / "weights" / "minilm"
    packed = tmp_path / "packed"
    command = [sys.executable, str(RECIPES / "pack.py"), str(shipped), str(packed)]
    subprocess.run(command, check=True, capture_output=True)
    assert (packed / "model.safetensors").read_bytes() == (shipped / "model.safetensors").read_bytes()
    card = (packed / "README.md").read_text(encoding="utf-8")
    assert "Not measured yet." in card and "{" not in card and "M tokens" in card
    from unembed.checkpoints import native

    tokens = sum(run["tokens"] for run in native.history(shipped) if not run.get("corrector"))
    assert "a corrector of" in card
    assert f"{tokens / 1e6:.1f}M tokens" in card


@pytest.mark.parametrize("language", ["ru", "zh"])
def test_the_e5_recipes_train_on_their_language_and_never_on_what_is_held_out(language, request):
    recipe = TrainConfig.from_dict(yaml.safe_load((ROOT / "recipes" / "e5" / f"{language}.yaml").read_text()))
    assert all(source.path.startswith(f"{language}/") for source in recipe.corpora)
    assert all(path.startswith(f"heldout/{language}_") for path in recipe.heldout)
    assert sum(source.weight for source in recipe.corpora) == pytest.approx(1)
    folder = request.getfixturevalue("data_dir")
    for path in (*(source.path for source in recipe.corpora), *recipe.heldout):
        assert (folder / path).is_file()
