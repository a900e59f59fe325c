"""vec2text's interface on its own reference: the same texts step by step, and our search never worse."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import unembed
from unembed.compat import vec2text
from unembed.errors import InputError
from unembed.metrics import cosine


@pytest.fixture(scope="module")
def reference(parity_dir):
    folder = parity_dir / "vec2text"
    found = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    return found | {"embeddings": np.load(folder / "reference.npz")["embeddings"]}


def open_pair(parity_dir, **options):
    folder = parity_dir / "vec2text" / "jxm"
    return vec2text.load_corrector(
        vec2text.models.InversionModel.from_pretrained(folder / "gtr__nq__32"),
        vec2text.models.CorrectorEncoderModel.from_pretrained(folder / "gtr__nq__32__correct"),
        **options,
    )


@pytest.fixture(scope="module")
def faithful(parity_dir):
    return open_pair(parity_dir, faithful=True)


@pytest.fixture(scope="module")
def corrector(parity_dir):
    return open_pair(parity_dir)


GRID = [(None, 0), (1, 0), (5, 0), (5, 2), (5, 4)]


@pytest.mark.parametrize(("steps", "beam"), GRID)
def test_faithful_gives_the_same_texts(faithful, reference, steps, beam):
    vectors = torch.from_numpy(reference["embeddings"])
    expected = reference["results"][f"steps={steps},beam={beam}"]["texts"]
    assert vec2text.invert_embeddings(vectors, faithful, num_steps=steps, sequence_beam_width=beam) == expected


@pytest.mark.parametrize(("steps", "beam"), GRID)
def test_our_search_is_never_worse(corrector, reference, steps, beam):
    expected = reference["results"][f"steps={steps},beam={beam}"]
    found = vec2text.invert_embeddings(reference["embeddings"], corrector, steps, beam)
    cosines = cosine(corrector.inverter.embedder.encode(found), reference["embeddings"])
    assert np.mean(cosines) >= np.mean(expected["cos"]) - 1e-5
    truth = reference["texts"]
    ours, theirs = (sum(map(str.__eq__, texts, truth)) for texts in (found, expected["texts"]))
    assert ours >= theirs


def test_half_precision_is_asked_for(parity_dir, reference):
    half = open_pair(parity_dir, dtype="bfloat16")
    assert half.model.hypothesizer.t5.dtype == half.model.corrector.t5.dtype == torch.bfloat16
    found = vec2text.invert_embeddings(reference["embeddings"][:4], half, 2, 2)
    assert found == reference["texts"][:4]


def test_strings_interpolation_and_hypotheses(corrector, faithful, reference):
    texts = reference["texts"][:2]
    found = vec2text.invert_strings(texts, corrector=corrector, num_steps=5, sequence_beam_width=2)
    assert found == texts
    a, b = torch.from_numpy(reference["embeddings"][:2])
    mixed = torch.lerp(input=a, end=b, weight=0.5)
    assert vec2text.invert_embeddings(embeddings=mixed[None], corrector=corrector, num_steps=1)[0].strip()
    for made in (corrector, faithful):
        steps, vectors = vec2text.invert_embeddings_and_return_hypotheses(reference["embeddings"][:3], made, 2, 2)
        assert [len(step) for step in steps] == [3, 3, 3] and [v.shape for v in vectors] == [(3, 768)] * 3
        assert steps[-1] == vec2text.invert_embeddings(reference["embeddings"][:3], made, 2, 2)


def test_nothing_is_embedded_twice(corrector, reference):
    rows, before = reference["embeddings"][4:6], corrector.embedder.queries
    found = corrector.inverter.invert(rows, 2, 1)
    asked = corrector.embedder.queries - before
    assert vec2text.invert_embeddings(rows, corrector, 2) == [inversion.text for inversion in found]
    assert corrector.embedder.queries - before == 2 * asked
    steps, vectors = vec2text.invert_embeddings_and_return_hypotheses(rows, corrector, 2)
    assert corrector.embedder.queries - before == 3 * asked + len({text for step in steps for text in step})
    np.testing.assert_allclose(vectors[1], corrector.embedder.encode(steps[1]), atol=1e-5)
    assert isinstance(vectors[1], torch.Tensor)


def test_the_snippets_of_the_readme_run_unchanged(parity_dir, reference, monkeypatch, capsys):
    """Under the name they use, on a pair that is here; there is no GPU to move a tensor to."""
    folder = parity_dir / "vec2text" / "jxm"
    pair = str(folder / "gtr__nq__32"), str(folder / "gtr__nq__32__correct")
    monkeypatch.setattr("unembed.checkpoints.PAIRS", {"text-embedding-ada-002": pair})
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    names = {
        "vec2text": vec2text, "np": np, "torch": torch,
        "texts": reference["texts"][:2], "embeddings": torch.from_numpy(reference["embeddings"][:2]),
    }  # fmt: skip
    exec(
        """
corrector = vec2text.load_corrector("text-embedding-ada-002")
first = vec2text.invert_strings(texts, corrector=corrector)
more = vec2text.invert_strings(texts, corrector=corrector, num_steps=20)
most = vec2text.invert_strings(texts, corrector=corrector, num_steps=20, sequence_beam_width=4)
given = vec2text.invert_embeddings(embeddings=embeddings.cuda(), corrector=corrector)
mean = vec2text.invert_embeddings(embeddings=embeddings.mean(dim=0, keepdim=True).cuda(), corrector=corrector)
for alpha in np.arange(0.0, 1.0, 0.5):
  mixed_embedding = torch.lerp(input=embeddings[0], end=embeddings[1], weight=alpha)
  text = vec2text.invert_embeddings(
      embeddings=mixed_embedding[None].cuda(),
      corrector=corrector,
      num_steps=2,
      sequence_beam_width=4,
  )[0]
  print(f'alpha={alpha:.1f}\t', text)
""",
        names,
    )
    assert names["first"] == names["given"] == reference["results"]["steps=None,beam=0"]["texts"][:2]
    assert names["more"] == names["most"] == reference["texts"][:2] and len(names["mean"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"alpha=0.0\t {reference['texts'][0]}" and lines[1].startswith("alpha=0.5\t ")


def test_the_evaluation_of_the_readme_runs_unchanged(parity_dir, reference, monkeypatch, tmp_path):
    """The pair and its data set by the names they have on the hub, as folders of these names."""
    (tmp_path / "jxm" / "nq_corpus_dpr").mkdir(parents=True)
    for name in ("gtr__nq__32", "gtr__nq__32__correct"):
        (tmp_path / "jxm" / name).symlink_to(parity_dir / "vec2text" / "jxm" / name, target_is_directory=True)
    (tmp_path / "jxm" / "nq_corpus_dpr" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: dev, path: dev.jsonl}\n---\n"
    )
    rows = "".join(json.dumps({"text": text}) + "\n" for text in reference["texts"])
    (tmp_path / "jxm" / "nq_corpus_dpr" / "dev.jsonl").write_text(rows)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from unembed.compat.vec2text import analyze_utils

    experiment, trainer = analyze_utils.load_experiment_and_trainer_from_pretrained("jxm/gtr__nq__32__correct")
    train_datasets = experiment._load_train_dataset_uncached(
        model=trainer.model, tokenizer=trainer.tokenizer, embedder_tokenizer=trainer.embedder_tokenizer
    )
    val_datasets = experiment._load_val_datasets_uncached(
        model=trainer.model, tokenizer=trainer.tokenizer, embedder_tokenizer=trainer.embedder_tokenizer
    )
    trainer.args.per_device_eval_batch_size = 16
    trainer.sequence_beam_width = 1
    trainer.num_gen_recursive_steps = 1
    found = trainer.evaluate(eval_dataset=train_datasets["validation"])
    assert found["eval_exact_match"] > 0.6 and found["eval_bleu_score"] > 80 > found["eval_bleu_score_sem"] >= 0
    assert found["eval_emb_cos_sim"] > 0.99 and found["eval_true_num_tokens"] > 8
    assert found["eval_n_ngrams_match_1"] > found["eval_n_ngrams_match_3"] > 0
    assert list(val_datasets) == ["ag_news"]
    with pytest.raises(InputError, match="give trainer.evaluate a list of texts"):
        val_datasets["wikibio"]


def test_vec2texts_figures_of_its_own_texts(parity_dir, reference):
    folder = parity_dir / "vec2text" / "jxm"
    load = vec2text.analyze_utils.load_experiment_and_trainer_from_pretrained
    _, trainer = load(str(folder / "gtr__nq__32__correct"), inversion_model=str(folder / "gtr__nq__32"), faithful=True)
    trainer.num_gen_recursive_steps = 1
    found = trainer.evaluate([{"text": text} for text in reference["texts"]], metric_key_prefix="test")
    theirs = reference["results"]["steps=1,beam=0"]
    same = [text == truth for text, truth in zip(theirs["texts"], reference["texts"], strict=True)]
    assert found["test_exact_match"] == pytest.approx(np.mean(same)) and 0 < found["test_exact_match"] < 1
    assert found["test_emb_cos_sim"] == pytest.approx(np.mean(theirs["cos"]), abs=1e-5)
    assert found["test_bleu_score"] < 100 and found["test_bleu_score_sem"] > 0
    alone = load(str(folder / "gtr__nq__32"))[1].evaluate(reference["texts"])
    first = reference["results"]["steps=None,beam=0"]
    assert alone["eval_emb_cos_sim"] == pytest.approx(np.mean(first["cos"]), abs=1e-5)
    with pytest.raises(InputError, match="give inversion_model"):
        load(str(folder / "gtr__nq__32__correct"))
    with pytest.raises(InputError, match="rows without a text"):
        trainer.evaluate([{"input_ids": [1, 2]}])
    with pytest.raises(InputError, match="nothing to score"):
        trainer.evaluate([])
    with pytest.raises(InputError, match="unembed evaluate"):
        _ = vec2text.analyze_utils.Trainer(SimpleNamespace(model=None)).model


def test_the_figures_against_numbers_worked_out_by_hand():
    found = dict(vec2text.analyze_utils.figures(["a b c d", "x y"], ["a b d", "x y"], [0.5, 1], [[4, 3], [2, 2]]))
    assert found["token_set_precision"] == 1 and found["token_set_recall"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["token_set_f1"] == found["rouge_score"] == pytest.approx((6 / 7 + 1) / 2)
    assert [found[f"n_ngrams_match_{n}"] for n in (1, 2, 3)] == [2.5, 1, 0]
    assert (found["num_true_words"], found["num_pred_words"], found["true_num_tokens"]) == (3, 2.5, 3)
    assert found["exact_match"] == 0.5 and found["exact_match_sem"] == pytest.approx(0.5)
    assert found["emb_cos_sim"] == 0.75 and found["emb_cos_sim_sem"] == pytest.approx(0.25)


def test_a_hypothesizer_alone_and_its_first_text_without_any_query(parity_dir, reference):
    alone = vec2text.load_corrector(str(parity_dir / "vec2text" / "jxm" / "gtr__nq__32"))
    before = alone.embedder.queries
    expected = reference["results"]["steps=None,beam=0"]["texts"]
    assert vec2text.invert_embeddings(reference["embeddings"], alone) == expected
    assert alone.embedder.queries == before
    found = vec2text.invert_embeddings(reference["embeddings"][4:6], alone, num_steps=2)
    assert len(found) == 2 and alone.embedder.queries > before


def test_an_apis_vectors_need_no_key_until_something_is_embedded(parity_dir, reference, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("gtr__nq__32", "gtr__nq__32__correct"):
        source = parity_dir / "vec2text" / "jxm" / name
        shutil.copytree(source, tmp_path / name, copy_function=shutil.copyfile)
        (tmp_path / name).chmod(0o755)
        config = json.loads((source / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(
            json.dumps(config | {"embedder_model_api": "text-embedding-ada-002"})
        )
    corrector = vec2text.load_corrector(str(tmp_path / "gtr__nq__32"), str(tmp_path / "gtr__nq__32__correct"))
    unit = reference["embeddings"] / np.linalg.norm(reference["embeddings"], axis=1, keepdims=True)
    assert len(vec2text.invert_embeddings(unit, corrector)) == len(unit)
    with pytest.raises(InputError, match="set the environment variable OPENAI_API_KEY"):
        vec2text.invert_embeddings(unit, corrector, num_steps=1)


def test_mixtures_of_unit_vectors_are_taken(parity_dir, reference):
    nano = parity_dir / "nanov2t"
    embedder = unembed.embedder(nano / "embedder", id="tiny-embedder")
    corrector = vec2text.load_corrector(str(nano / "stage1"), str(nano / "stage2"), embedder=embedder)
    ends = torch.from_numpy(corrector.inverter.embedder.encode(["should marry Paige and he", "escutcheon of Granada"]))
    for mixed in (ends.mean(dim=0, keepdim=True), torch.lerp(input=ends[0], end=ends[1], weight=0.3)):
        assert vec2text.invert_embeddings(mixed, corrector, num_steps=1, sequence_beam_width=2)[0].strip()


def test_what_cannot_be_is_one_line(corrector):
    with pytest.raises(InputError, match="unknown precision 'int3'"):
        vec2text.load_pretrained_corrector("gtr-base", dtype="int3")
    with pytest.raises(InputError, match="choose from gtr-base"):
        vec2text.load_pretrained_corrector("gtr-huge")
    minilm = unembed.load("all-MiniLM-L6-v2")
    with pytest.raises(InputError, match="needs a pair"):
        vec2text.Corrector(minilm.model, minilm.embedder, faithful=True)
    with pytest.raises(InputError, match="list of texts, got a single one"):
        vec2text.invert_strings("one text", corrector)


@pytest.mark.parametrize("steps", [None, 1])
@pytest.mark.parametrize("which", ["corrector", "faithful"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v[:, :512], "vectors have 512 dimensions, embedder sentence-transformers/gtr-t5-base#raw has 768"),
        (lambda v: v.T, "transposed"),
        (lambda v: v * np.nan, "vector 0 contains NaN"),
        (lambda v: [[1.0, 2.0], [1.0]], "vectors differ in length"),
        (lambda v: "a text", "expected vectors, got str"),
        (lambda v: v[:0], "there are no vectors"),
    ],
)
def test_what_is_no_embedding_of_this_embedder_is_one_line(request, reference, which, steps, spoil, message):
    with pytest.raises(InputError, match=message) as caught:
        vec2text.invert_embeddings(
            spoil(reference["embeddings"][:2]), request.getfixturevalue(which), num_steps=steps, sequence_beam_width=1
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("which", ["corrector", "faithful"])
def test_embeddings_in_any_form(request, reference, which):
    made, rows = request.getfixturevalue(which), torch.from_numpy(reference["embeddings"][:2])
    expected = vec2text.invert_embeddings(rows, made, num_steps=1)
    assert vec2text.invert_embeddings(rows.tolist(), made, num_steps=1) == expected
    assert vec2text.invert_embeddings([row.requires_grad_() for row in rows], made, num_steps=1) == expected
    assert vec2text.invert_embeddings(rows[0], made, num_steps=1) == expected[:1]
    assert len(vec2text.invert_embeddings(rows.bfloat16(), made, num_steps=1)) == 2
