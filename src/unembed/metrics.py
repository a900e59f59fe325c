"""How close reconstructed texts are to the true ones; every mean carries n and a bootstrap interval.

Notable:
- The argument order is always `(reference, prediction)`.
- `exact`, `exact_uncased`, `token_f1`, `token_set_f1`, `character_f1`, `rouge_l` lie in 0..1, `cosine` in -1..1;
  `bleu`, `corpus_bleu` and `chrf` keep sacrebleu's 0..100.
- No tokeniser data is downloaded: `words` is defined here, for every script (see there), and ROUGE-L uses it too.
- `bleu` is the mean of sentence BLEUs, which is what the papers on embedding inversion report; `corpus_bleu` is
  sacrebleu's corpus figure. The two differ, so both are given.
- The papers on embedding inversion define token F1 on the *set* of cased tokens, punctuation included: that is
  `token_set_f1`, to be put beside their figures. `token_f1` counts lower-cased words with their multiplicity
  (the F1 of question answering), which a prediction cannot please by naming each word once.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unembed.errors import InputError, require
from unembed.scripts import UNSPACED

RESAMPLES = 2000
CONFIDENCE = 0.95

# Scripts written without spaces: each character (with its marks) is a token.
_UNSPACED = re.compile(f"[{UNSPACED}]")
# Those among them that sacrebleu's "zh" tokeniser takes apart.
_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df]")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_LETTER = re.compile(r"[^\W\d_]")


# --- estimates -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A mean (or a corpus figure) with its percentile bootstrap interval over the rows.

    `low` and `high` are None when n is 1: one row says nothing about the spread, and JSON has no NaN.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        interval = "no interval" if self.low is None or self.high is None else f"{self.low:.4g} to {self.high:.4g}"
        return f"{self.value:.4g} ({interval}, n={self.n})"

    def to_dict(self) -> dict[str, float | int | None]:
        """The four fields as plain JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def bootstrap(
    values: Sequence[float] | np.ndarray,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Mean of `values` [n] with a seeded percentile bootstrap interval.

    Raises InputError when there is no value, when one is not a finite number, or when the settings make no sense.
    """
    array = _finite_row(values, "values")
    return _estimate_columns(array[:, None], resamples, confidence, seed)[0]


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Mean of `first - second`, two systems scored on the same n rows, resampling the rows as pairs.

    The difference is distinguishable from nothing, at this confidence, when `low` and `high` have the same sign.
    Raises InputError as `bootstrap` does, and when the lengths differ.
    """
    a, b = _finite_row(first, "first"), _finite_row(second, "second")
    if len(a) != len(b):
        raise InputError(f"a paired difference needs the same rows on both sides: got {len(a)} and {len(b)} values")
    return bootstrap(a - b, resamples=resamples, confidence=confidence, seed=seed)


def share_estimate(
    hits: Sequence[float] | np.ndarray, counts: Sequence[float] | np.ndarray, *, seed: int = 0
) -> Estimate:
    """Share of what could be hit that was hit, where row i had `hits[i]` out of `counts[i]`; `n` is the sum of counts.

    Whole rows are resampled, since what stands in one row is found or missed together. Raises InputError where nothing
    could be hit.
    """
    hit, count = _finite_row(hits, "hits"), _finite_row(counts, "counts")
    there = count > 0
    if not there.any():
        raise InputError("counts: nothing could be hit; leave out measures that no row takes part in")
    hit, count = hit[there], count[there]
    value, n = float(hit.sum() / count.sum()), int(count.sum())
    if len(count) == 1:
        return Estimate(value, None, None, n)
    samples = [(drawn @ hit) / (drawn @ count) for drawn in _resampled_counts(len(count), RESAMPLES, seed)]
    return Estimate(value, *_interval(np.concatenate(samples), CONFIDENCE), n)


def _finite_row(values: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    """`values` as float64 [n], n >= 1, all finite; InputError otherwise."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: not a list of numbers; give one number per row") from error
    if array.ndim != 1:
        raise InputError(f"{name}: shape {list(array.shape)} where one number per row is needed; give a flat list")
    if not len(array):
        raise InputError(f"{name}: nothing to score (0 rows); give at least one row")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise InputError(f"{name}: row {bad[0]} is {array[bad[0]]}; leave out rows that have no finite value")
    return array


def _resampled_counts(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of n rows was drawn: float64 [chunk, n], `resamples` lines in all, at most ~32 MB at a time."""
    rng = np.random.default_rng(seed)
    chunk = max(1, 4_000_000 // n)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        draws = rng.integers(0, n, size=(size, n))
        draws += np.arange(size)[:, None] * n
        yield np.bincount(draws.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _check_bootstrap(resamples: int, confidence: float) -> None:
    if resamples < 1:
        raise InputError(f"resamples={resamples}: the bootstrap needs at least 1 (the default is {RESAMPLES})")
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence}: give a share between 0 and 1, such as {CONFIDENCE}")


def _interval(samples: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def _estimate_columns(matrix: np.ndarray, resamples: int, confidence: float, seed: int) -> list[Estimate]:
    """The mean of each column of `matrix` [n, m]; all columns share their resamples."""
    _check_bootstrap(resamples, confidence)
    n = len(matrix)
    means = matrix.mean(axis=0)
    if n == 1:
        return [Estimate(float(mean), None, None, 1) for mean in means]
    samples = np.concatenate([counts @ matrix for counts in _resampled_counts(n, resamples, seed)]) / n
    # A mean cannot leave the range of its values: undo what rounding in the product may have added.
    lowest, highest = matrix.min(axis=0), matrix.max(axis=0)
    samples, means = np.clip(samples, lowest, highest), np.clip(means, lowest, highest)
    return [Estimate(float(mean), *_interval(samples[:, j], confidence), n) for j, mean in enumerate(means)]


# --- texts -----------------------------------------------------------------------------------------------------------


def normalize_whitespace(text: str) -> str:
    """`text` in Unicode form NFC, runs of whitespace made one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _tokens(text: str, punctuation: bool) -> list[str]:
    tokens: list[str] = []
    joins = takes_marks = False  # whether the last token takes a further letter, a further combining mark
    for char in text:
        category = unicodedata.category(char)
        if category[0] in "LN":
            alone = _UNSPACED.match(char) is not None
            if joins and not alone:
                tokens[-1] += char
            else:
                tokens.append(char)
            joins, takes_marks = not alone, True
        elif category[0] == "M":
            if takes_marks:
                tokens[-1] += char
        elif category != "Cf":  # soft hyphens and joiners do not end a word
            joins = takes_marks = False
            if punctuation and category[0] in "PS":
                tokens.append(char)
    return tokens


def words(text: str) -> list[str]:
    """The lower-cased words of `text`, in order.

    The text is put in Unicode form NFC and case-folded; a word is a longest run of letters, digits and their combining
    marks. Whitespace, punctuation, symbols and the underscore end a word and are dropped ("don't" is `don`, `t`);
    soft hyphens and zero-width joiners are ignored. In scripts written without spaces (Han, kana, Bopomofo, Thai, Lao,
    Khmer, Myanmar) every character with its marks is a word. On ASCII this is the tokenisation of ROUGE.
    """
    folded = _fold(text)
    return _ASCII_WORD.findall(folded) if folded.isascii() else _tokens(folded, punctuation=False)


def tokens(text: str) -> list[str]:
    """The cased words of `text` and its punctuation marks and symbols, each of these alone, in order."""
    return _tokens(unicodedata.normalize("NFC", text), punctuation=True)


def exact_match(reference: str, prediction: str, *, cased: bool = True) -> bool:
    """Whether the two are the same text, up to whitespace and Unicode form NFC (and up to case with `cased=False`)."""
    reference, prediction = normalize_whitespace(reference), normalize_whitespace(prediction)
    return reference == prediction if cased else _fold(reference) == _fold(prediction)


def token_f1(reference: str, prediction: str) -> float:
    """F1 of the bags of `words`, each word counted as often as it occurs; order does not matter.

    Where neither text has a word (nothing, or only punctuation), 1 when they match exactly up to case, else 0.
    """
    true, predicted = Counter(words(reference)), Counter(words(prediction))
    if not true and not predicted:
        return float(exact_match(reference, prediction, cased=False))
    return 2 * (true & predicted).total() / (true.total() + predicted.total())


def token_set_f1(reference: str, prediction: str) -> float:
    """F1 of the sets of cased tokens, punctuation included: for comparison with published inversion figures.

    `tokens` are cut as in `words`, but keep their case, and every punctuation mark or symbol is one. The published
    figures come from a Penn-Treebank tokeniser, which cuts contractions and hyphenated words elsewhere.
    """
    true, predicted = set(tokens(reference)), set(tokens(prediction))
    if not true and not predicted:
        return float(exact_match(reference, prediction))
    return 2 * len(true & predicted) / (len(true) + len(predicted))


def character_f1(reference: str, prediction: str) -> float:
    """F1 of the bags of characters, case-folded and without white space; order does not matter. For scripts without
    spaces, where a word is hard to say; 1 where neither text has a character."""
    true, predicted = (Counter("".join(_fold(text).split())) for text in (reference, prediction))
    if not true and not predicted:
        return 1.0
    return 2 * (true & predicted).total() / (true.total() + predicted.total())


class _Words:
    """The tokeniser interface that rouge-score asks for; its own would drop every letter outside a to z."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _rouge_l_scorer() -> Callable[[str, str], float]:
    scorer = require("rouge_score.rouge_scorer", "evaluate").RougeScorer(["rougeL"], tokenizer=_Words())

    def score(reference: str, prediction: str) -> float:
        if not words(reference) and not words(prediction):
            return float(exact_match(reference, prediction, cased=False))
        return float(scorer.score(reference, prediction)["rougeL"].fmeasure)

    return score


def _chrf_scorer() -> Callable[[str, str], float]:
    scorer = require("sacrebleu", "evaluate").CHRF()
    return lambda reference, prediction: float(scorer.sentence_score(prediction, [reference]).score)


def rouge_l(reference: str, prediction: str) -> float:
    """ROUGE-L F-measure (0..1) over `words`, as in `token_f1` where neither text has a word. Needs extra `evaluate`."""
    return _rouge_l_scorer()(reference, prediction)


def chrf(reference: str, prediction: str) -> float:
    """Sentence chrF2 (0..100), sacrebleu's defaults: character 6-grams, case and no whitespace. Extra `evaluate`."""
    return _chrf_scorer()(reference, prediction)


# --- BLEU ------------------------------------------------------------------------------------------------------------


def bleu_tokenizer_for(references: Sequence[str]) -> str:
    """sacrebleu's tokeniser for these texts: "zh" when most of their letters are Han or kana, otherwise "13a"."""
    cjk = sum(len(_CJK.findall(text)) for text in references)
    return "zh" if 2 * cjk > sum(len(_LETTER.findall(text)) for text in references) else "13a"


def _bleu_statistics(
    references: Sequence[str], predictions: Sequence[str], tokenize: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sentence BLEUs [n], and counts [n, 10]: lengths of prediction and reference, matched and all 1- to 4-grams."""
    bleu = require("sacrebleu", "evaluate").BLEU
    if tokenize not in bleu.TOKENIZERS:
        raise InputError(f"unknown BLEU tokeniser {tokenize!r}; sacrebleu knows: {', '.join(sorted(bleu.TOKENIZERS))}")
    try:
        # Effective order: a text of fewer than four tokens can reach 100. Longer texts are not affected.
        scorer = bleu(tokenize=tokenize, effective_order=True)
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"BLEU tokeniser {tokenize!r} cannot start ({reason}); install it or take '13a'") from error
    results = [scorer.sentence_score(p, [r]) for r, p in zip(references, predictions, strict=True)]
    counts = [[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in results]
    return np.array([s.score for s in results], dtype=np.float64), np.array(counts, dtype=np.float64).reshape(-1, 10)


def _bleu_of_counts(counts: np.ndarray) -> np.ndarray:
    """Corpus BLEU [r] of summed counts [r, 10] with sacrebleu's default "exp" smoothing, all r at once."""
    predicted, reference, matched, total = counts[:, 0], counts[:, 1], counts[:, 2:6], counts[:, 6:10]
    # The k-th order without a match counts as 1 / 2**k matches.
    smoothed = np.where(matched > 0, matched, 0.5 ** np.cumsum(matched == 0, axis=1))
    precision = smoothed / np.maximum(total, 1)
    brevity = np.exp(np.minimum(0.0, 1 - reference / np.maximum(predicted, 1)))
    scores = 100 * brevity * np.exp(np.log(precision).mean(axis=1))
    # Nothing matched, or no text long enough for a 4-gram: 0, as in sacrebleu.
    return np.where((matched.sum(axis=1) > 0) & (total > 0).all(axis=1), scores, 0.0)


def _estimate_corpus_bleu(counts: np.ndarray, resamples: int, confidence: float, seed: int) -> Estimate:
    n = len(counts)
    value = float(_bleu_of_counts(counts.sum(axis=0, keepdims=True))[0])
    if n == 1:
        return Estimate(value, None, None, 1)
    drawn = _resampled_counts(n, resamples, seed)
    samples = np.concatenate([_bleu_of_counts(weights @ counts) for weights in drawn])
    return Estimate(value, *_interval(samples, confidence), n)


def sentence_bleu(reference: str, prediction: str, *, tokenize: str | None = None) -> float:
    """Sentence BLEU (0..100) by sacrebleu: "exp" smoothing, effective order, cased. Needs the extra `evaluate`.

    tokenize: sacrebleu's name of a tokeniser; None chooses by `bleu_tokenizer_for`. Unknown name: InputError.
    """
    return float(_bleu_statistics([reference], [prediction], tokenize or bleu_tokenizer_for([reference]))[0][0])


def corpus_bleu(references: Sequence[str], predictions: Sequence[str], *, tokenize: str | None = None) -> float:
    """Corpus BLEU (0..100), equal to sacrebleu's default (13a, "exp"; "zh" for Chinese). Needs extra `evaluate`."""
    _check_pairs(references, predictions)
    _, counts = _bleu_statistics(references, predictions, tokenize or bleu_tokenizer_for(references))
    return float(_bleu_of_counts(counts.sum(axis=0, keepdims=True))[0])


# --- vectors ---------------------------------------------------------------------------------------------------------


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of each row of `first` [n, d] with the same row of `second` [n, d]: float64 [n], computed in float64.

    Raises InputError on other shapes and on a row that has no direction (all zero, or with a NaN or an infinity).
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 2 or a.shape != b.shape:
        raise InputError(f"cosine needs two arrays [n, d] of one shape; got {list(a.shape)} and {list(b.shape)}")
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(bad):
        raise InputError(f"row {bad[0]} has no direction (a zero vector, a NaN or an infinity); leave that row out")
    return np.clip(np.einsum("nd,nd->n", a, b) / norms, -1.0, 1.0)


# --- a whole set of pairs --------------------------------------------------------------------------------------------

# name -> a function that makes the scorer of one row; making it may raise MissingExtra. "bleu" is scored in one go
# (its counts also serve corpus_bleu), and "cosine" is given by the caller.
_ROW_METRICS: dict[str, Callable[[], Callable[[str, str], float]]] = {
    "exact": lambda: exact_match,
    "exact_uncased": lambda: lambda reference, prediction: exact_match(reference, prediction, cased=False),
    "token_f1": lambda: token_f1,
    "token_set_f1": lambda: token_set_f1,
    "character_f1": lambda: character_f1,
    "rouge_l": _rouge_l_scorer,
    "chrf": _chrf_scorer,
}
METRICS: tuple[str, ...] = (*_ROW_METRICS, "bleu")
"""Every text metric that `score_pairs` knows; rouge_l, chrf and bleu need the extra `evaluate`."""


@dataclass(frozen=True)
class Scores:
    """What `score_pairs` measured."""

    rows: dict[str, np.ndarray]
    """Metric -> float64 [n], one figure per pair (no `corpus_bleu`: it exists only for the whole)."""
    summary: dict[str, Estimate]
    """Metric -> its mean over the pairs; `corpus_bleu` beside `bleu`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What else is needed to get the same figures again: resamples, confidence, seed, bleu_tokenize."""

    @property
    def n(self) -> int:
        """Number of pairs."""
        return next(iter(self.summary.values())).n

    def to_dict(self, *, rows: bool = False) -> dict[str, Any]:
        """Plain JSON values; `rows=True` adds the per-row figures."""
        result: dict[str, Any] = {
            "n": self.n,
            "summary": {name: estimate.to_dict() for name, estimate in self.summary.items()},
            "settings": dict(self.settings),
        }
        if rows:
            result["rows"] = {name: values.tolist() for name, values in self.rows.items()}
        return result


def _check_pairs(references: Sequence[str], predictions: Sequence[str]) -> None:
    for name, texts in (("references", references), ("predictions", predictions)):
        if isinstance(texts, str):
            raise InputError(f"{name}: one text where a list of texts is needed; write [text]")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"{name}: row {index} is {type(text).__name__}, not a text; give a str in every row")
    if len(references) != len(predictions):
        raise InputError(f"{len(references)} references but {len(predictions)} predictions; give one for each")
    if not len(references):
        raise InputError("nothing to score (0 pairs); give at least one reference and its prediction")


def score_pairs(
    references: Sequence[str],
    predictions: Sequence[str],
    cosines: Sequence[float] | np.ndarray | None = None,
    *,
    metrics: Sequence[str] | None = None,
    bleu_tokenize: str | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Scores:
    """Score n predictions against their references.

    cosines: the cosine of each prediction's embedding to its target [n], summarised beside the rest when given.
    metrics: some of `METRICS`; None takes all of them.
    bleu_tokenize: sacrebleu's name of a tokeniser; None chooses by `bleu_tokenizer_for` from the references.
    resamples, confidence, seed: of the bootstrap; the same resampled rows serve every metric.
    Raises InputError on lengths that differ, on 0 pairs, on a row that is no text and on an unknown metric, and
    MissingExtra when a metric's package is not installed.
    """
    _check_pairs(references, predictions)
    _check_bootstrap(resamples, confidence)
    chosen = list(METRICS) if metrics is None else list(dict.fromkeys(metrics))
    unknown = [name for name in chosen if name not in METRICS]
    if unknown:
        raise InputError(f"unknown metric {unknown[0]!r}; choose from {', '.join(METRICS)}")
    if not chosen and cosines is None:
        raise InputError(f"no metric chosen; choose from {', '.join(METRICS)}")
    settings: dict[str, Any] = {"resamples": resamples, "confidence": confidence, "seed": seed}
    # Made before any scoring, so that a missing package shows at once.
    scorers = {name: _ROW_METRICS[name]() for name in chosen if name in _ROW_METRICS}
    rows: dict[str, np.ndarray] = {}
    if cosines is not None:
        rows["cosine"] = _finite_row(cosines, "cosines")
        if len(rows["cosine"]) != len(references):
            raise InputError(f"{len(rows['cosine'])} cosines for {len(references)} pairs; give one for each")
    counts: np.ndarray | None = None
    if "bleu" in chosen:
        settings["bleu_tokenize"] = bleu_tokenize or bleu_tokenizer_for(references)
        rows["bleu"], counts = _bleu_statistics(references, predictions, settings["bleu_tokenize"])
    for name, score in scorers.items():
        values = [score(reference, prediction) for reference, prediction in zip(references, predictions, strict=True)]
        rows[name] = np.array(values, dtype=np.float64)
    rows = {name: rows[name] for name in (*METRICS, "cosine") if name in rows}
    estimates = _estimate_columns(np.stack(list(rows.values()), axis=1), resamples, confidence, seed)
    summary = dict(zip(rows, estimates, strict=True))
    if counts is not None:
        summary["corpus_bleu"] = _estimate_corpus_bleu(counts, resamples, confidence, seed)
    return Scores(rows, summary, settings)
