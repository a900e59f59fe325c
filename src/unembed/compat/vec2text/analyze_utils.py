"""Evaluating a pretrained pair as vec2text's README does: `load_experiment_and_trainer_from_pretrained`.

The figures have vec2text's names. Where they differ in what they count, the reason is a defect there:

- Texts are compared, so that special tokens never count; n-grams and sets are of our tokens (`unembed.metrics`), since
  its own tokeniser has to be downloaded. Precision and recall are not swapped.
- `emb_cos_sim` is the mean over all rows, not over the first batch.
- `loss` and `perplexity` belong to training: `unembed train` reports them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unembed.checkpoints import PAIRS, is_corrector, resolve
from unembed.checkpoints.tensors import read_config
from unembed.compat.vec2text.api import Corrector, invert_embeddings, load_corrector
from unembed.errors import InputError
from unembed.metrics import cosine, score_pairs, tokens
from unembed.models.encoder_decoder import EncoderDecoderModel

SPLITS = {"nq": {"train": "hf:jxm/nq_corpus_dpr#train", "validation": "hf:jxm/nq_corpus_dpr#dev"}}
"""Data set that a checkpoint was trained on → its splits, as `unembed evaluate --data` names them."""
UNSEEN = {"ag_news": "hf:fancyzhx/ag_news#test"}


class Datasets(Mapping[str, list[str]]):
    """Texts by name; each is fetched when it is asked for, so that nothing is fetched in vain."""

    def __init__(self, sources: Mapping[str, str], limits: Mapping[str, int | None]) -> None:
        self.sources, self.limits = sources, limits

    def __getitem__(self, name: str) -> list[str]:
        from unembed.training.config import SourceConfig
        from unembed.training.corpora import read_texts

        if name not in self.sources:
            there = ", ".join(self.sources) or "none"
            raise InputError(f"no data set '{name}' (there: {there}): give trainer.evaluate a list of texts instead")
        return list(read_texts(SourceConfig(self.sources[name], limit=self.limits.get(name))))

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True)
class Experiment:
    """What a pair was trained on, and is evaluated on."""

    dataset: str
    train_rows: int | None = None
    eval_rows: int | None = None

    def _load_train_dataset_uncached(self, **_: Any) -> Datasets:
        """The texts of `train` and `validation`. The arguments are vec2text's and of no effect."""
        return Datasets(SPLITS.get(self.dataset, {}), {"train": self.train_rows, "validation": self.eval_rows})

    def _load_val_datasets_uncached(self, **_: Any) -> Datasets:
        """Texts of other kinds than the training's, as far as they are on the hub in a form that can still be read."""
        return Datasets(UNSEEN, dict.fromkeys(UNSEEN, self.eval_rows))


@dataclass
class Arguments:
    """Of an evaluation."""

    per_device_eval_batch_size: int = 16


@dataclass
class Trainer:
    """A pair and how hard it is to look; `evaluate` measures it. It trains nothing: `unembed train` does."""

    corrector: Corrector
    args: Arguments = field(default_factory=Arguments)
    num_gen_recursive_steps: int = 1
    sequence_beam_width: int = 1

    @property
    def model(self) -> EncoderDecoderModel:
        if not isinstance(self.corrector.model, EncoderDecoderModel):
            raise InputError("this model is none of vec2text's: measure it with unembed evaluate")
        return self.corrector.model

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401  (a tokenizer of transformers)
        return self.model.tokenizer

    @property
    def embedder_tokenizer(self) -> Any:  # noqa: ANN401
        return self.model.tokenizer

    def evaluate(self, eval_dataset: Sequence[Any], metric_key_prefix: str = "eval") -> dict[str, float]:
        """Cut the texts to as many tokens as the pair was trained on, invert their vectors and compare.

        Args:
            eval_dataset: texts, or rows that hold one under "text".
            metric_key_prefix: stands before each name.

        Returns:
            The figures: `bleu_score` 0..100, counts, and shares and cosines up to 1; `…_sem` is a standard error.
        """
        rows = [row if isinstance(row, str) else row["text"] for row in eval_dataset]
        steps = self.num_gen_recursive_steps if self.model.corrector else None
        references: list[str] = []
        texts: list[str] = []
        cosines: list[float] = []
        counts: list[list[int]] = []
        size = max(1, self.args.per_device_eval_batch_size)
        for start in range(0, len(rows), size):
            ids = self.model.encode(rows[start : start + size])
            part = self.model.decode(ids)
            targets = self.corrector.inverter.embedder.encode(part)
            found = invert_embeddings(targets, self.corrector, steps, self.sequence_beam_width)
            written = [text if text.strip() else "." for text in found]
            cosines += cosine(self.corrector.inverter.embedder.encode(written), targets).tolist()
            counts += [[len(self.tokenizer.tokenize(text)) for text in pair] for pair in zip(part, found, strict=True)]
            references += part
            texts += found
        return {f"{metric_key_prefix}_{name}": value for name, value in figures(references, texts, cosines, counts)}


def figures(
    references: list[str], texts: list[str], cosines: list[float], counts: list[list[int]]
) -> Iterator[tuple[str, float]]:
    """(vec2text's name, mean over the rows); counts [n, 2] are the model's tokens of reference and text."""
    scores = score_pairs(
        references, texts, cosines, metrics=("bleu", "token_set_f1", "token_f1"), bleu_tokenize="13a"
    ).rows
    pairs = [(tokens(a), tokens(b)) for a, b in zip(references, texts, strict=True)]
    exact = np.array([a == b for a, b in zip(references, texts, strict=True)], dtype=np.float64)
    shared = np.array([len(set(a) & set(b)) for a, b in pairs])
    sizes = np.array([[max(1, len(set(a))), max(1, len(set(b)))] for a, b in pairs])
    yield "true_num_tokens", float(np.mean([count[0] for count in counts]))
    yield "pred_num_tokens", float(np.mean([count[1] for count in counts]))
    yield "token_set_precision", float(np.mean(shared / sizes[:, 1]))
    yield "token_set_recall", float(np.mean(shared / sizes[:, 0]))
    yield from _with_error("token_set_f1", scores["token_set_f1"])
    for n in (1, 2, 3):
        yield f"n_ngrams_match_{n}", float(np.mean([_matches(a, b, n) for a, b in pairs]))
    yield "num_true_words", float(np.mean([len(a) for a, _ in pairs]))
    yield "num_pred_words", float(np.mean([len(b) for _, b in pairs]))
    yield from _with_error("bleu_score", scores["bleu"])
    yield "rouge_score", float(scores["token_f1"].mean())  # ROUGE-1 is the F1 of the bags of words
    yield from _with_error("exact_match", exact)
    yield from _with_error("emb_cos_sim", scores["cosine"])


def _with_error(name: str, values: np.ndarray) -> Iterator[tuple[str, float]]:
    """The mean and its standard error, 0 for a single row."""
    yield name, float(values.mean())
    yield f"{name}_sem", float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _matches(a: list[str], b: list[str], n: int) -> int:
    """Distinct n-grams of a that are in b."""
    return len(set(zip(*(a[i:] for i in range(n)), strict=False)) & set(zip(*(b[i:] for i in range(n)), strict=False)))


def load_experiment_and_trainer_from_pretrained(
    name: str,
    *,
    use_less_data: int | None = None,
    inversion_model: str | None = None,
    **options: Any,  # noqa: ANN401
) -> tuple[Experiment, Trainer]:
    """(experiment, trainer) of a corrector with its hypothesizer, or of a hypothesizer alone.

    Args:
        name: hub id, folder, or a name such as `gtr-base`.
        use_less_data: training texts to read at most; None or -1 reads all.
        inversion_model: the hypothesizer of a corrector that neither is a public one nor names it in its config.
        options: of `load_corrector` (embedder, device, faithful).

    Raises:
        InputError: a corrector whose hypothesizer is not known.
    """
    parts = list(PAIRS.get(name, (name,)))
    config = read_config(resolve(parts[-1]))
    if len(parts) == 1 and is_corrector(resolve(name)):
        known = {corrector: hypothesizer for hypothesizer, corrector in PAIRS.values()}
        first = inversion_model or known.get(str(name)) or config.get("corrector_model_from_pretrained")
        if not first:
            raise InputError(f"{name} is a corrector and does not say of which hypothesizer: give inversion_model")
        parts = [first, name]
    corrector = load_corrector(*parts, **options)
    rows = use_less_data if use_less_data is not None and use_less_data > 0 else None
    dataset = str(config.get("dataset_name") or "")
    return Experiment(dataset, rows, config.get("max_eval_samples") or 1000), Trainer(corrector)
