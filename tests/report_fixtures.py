"""A report as `unembed audit` writes it, made up: its figures say nothing about any model."""

from __future__ import annotations

from typing import Any


def estimate(value: float, width: float = 0.04, n: int = 400) -> dict[str, Any]:
    return {"value": value, "low": max(value - width, 0.0), "high": value + width, "n": n}


def scores(level: float) -> dict[str, Any]:
    """On the scales of metrics.py, the better the nearer `level` is to 1."""
    return {
        "exact_uncased": estimate(level / 2), "token_f1": estimate(level), "bleu": estimate(80 * level, 3),
        "rouge_l": estimate(0.95 * level), "chrf": estimate(90 * level, 3), "cosine": estimate(0.5 + level / 2, 0.01),
    }  # fmt: skip


def leak(defence: str, strength: float, allowed: float, loss: float, attacker: str, f1: float) -> dict[str, Any]:
    measured = {name: scores(f1)[name] for name in ("exact_uncased", "token_f1", "bleu")}
    return {
        "id": f"{defence}/{allowed:g}/{attacker}", "defence": defence, "allowed": allowed, "strength": strength,
        "loss": loss, "attacker": attacker, "cosine": estimate(0.9), "found": estimate(f1), "scores": measured,
        "rare": estimate(f1 / 2),
    }  # fmt: skip


def defences() -> dict[str, Any]:
    worst = [
        leak("none", 0, 0, 0, "static", 0.62), leak("gaussian", 0.01, 0, 0.0, "averaging", 0.61),
        leak("gaussian", 0.04, 0.03, 0.029, "averaging", 0.55), leak("quantisation", 4, 0.01, 0.004, "denoising", 0.57),
        leak("quantisation", 1, 0.1, 0.08, "denoising", 0.3), leak("rotation", 1, 0.01, -0.0004, "1000 pairs", 0.6),
    ]  # fmt: skip
    return {
        "settings": {"n": 100, "tokens": 16, "corpus": "cranfield", "model": "all-MiniLM-L6-v2"},
        "matched": [{"defence": "masking", "allowed": 0.0, "strength": None, "loss": 0.0, "difference": None}],
        "attackers": {"static": "the vectors", "denoising": "also the defence"}, "worst": worst, "leaks": worst,
    }  # fmt: skip


def record(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"doc-{number:04d}", "text": "please call maria lopez on 555-0142 about the invoice",
        "true_text": "Please call Maria Lopez on 555-0142 about her invoice.", "cosine": 0.9731, "good": 0.83,
        "exact": 0.12, "verified": False, "token_f1": 0.89, "recovered": False, "pii": {"PERSON": ["maria lopez"]},
        "leaked": {"PERSON": ["Maria Lopez"], "PHONE_NUMBER": ["555-0142"]}, "language": "latin", "words": 9,
    } | changes  # fmt: skip


def audit_report(truth: bool = True) -> dict[str, Any]:
    """With everything in it; without truth, what can be said then."""
    buckets = {name: {"n": 200, "scores": scores(level), "pii_recall": estimate(level / 3)} for name, level in
               (("1–8 words", 0.8), ("9–16 words", 0.6), ("17 words or more", 0.4))}  # fmt: skip
    kinds = {"EMAIL_ADDRESS": 0.12, "PERSON": 0.45, "PHONE_NUMBER": 0.31, "CREDIT_CARD": 0.02, "LOCATION": 0.58}
    found = {kind: {"found": 80, "recall": estimate(value, 0.09, 80)} for kind, value in kinds.items()}
    report = {
        "unembed": "0.2.0", "created": "2026-11-22T08:41:07+00:00", "config_hash": "c503536ec848e6ba",
        "config": {"store": "qdrant://localhost:6333/tickets", "sample": 400, "steps": 20, "text_field": None},
        "run": {"seconds": 754.2, "seed": 0, "processor": "AMD EPYC 7B13", "machine": "x86_64", "cores": 2,
                "torch": "2.13.0", "authorised_by": "J. Doe, ticket SEC-1042"},
        "target": {"source": "qdrant://localhost:6333/tickets", "count": 182340, "sampled": 400, "usable": 398,
                   "dimension": 384, "dtype": "float32", "norms": {"least": 0.9998, "mean": 1.0, "greatest": 1.0003},
                   "fields": [{"name": "customer_mail", "kind": "text"}, {"name": "tenant", "kind": "number"}],
                   "embedder": {"name": "all-MiniLM-L6-v2", "plausible": True, "why": "the stored vectors of 50 texts "
                                "were reproduced"},
                   "refused": {"zero vector": 2}},
        "threat_model": {"access": "stored vectors and the embedder", "model": "all-MiniLM-L6-v2",
                         "model_digest": "9b1c57d2a40e", "steps": 20, "consensus": 0, "queries_mean": 161.5,
                         "queries": 64277, "tokens": 1028432, "cost": None},
        "truth": truth, "headline": {"measure": "pii_recall",
                                     "label": "personal data that stands in the reconstructions",
                                     "estimate": estimate(0.376, 0.042, 812)},
        "scores": scores(0.62), "pii": {"any": {"found": 812, "recall": estimate(0.376, 0.042, 812)}, **found},
        "confidence": {"verified": estimate(0.05), "good": estimate(0.41), "exact": estimate(0.22)},
        "by": {"length": buckets, "language": {"latin": buckets["1–8 words"]}, "domain": {}},
        "controls": {"random text": {"scores": scores(0.08), "pii_recall": estimate(0.003, 0.003)},
                     "prior": {"scores": scores(0.11), "pii_recall": estimate(0.006, 0.004)},
                     "nearest public text": {"scores": scores(0.2), "pii_recall": estimate(0.021, 0.01)}},
        "canaries": {"card": {"planted": 20, "recall": {"1": estimate(0.05, 0.05, 20), "10": estimate(0.2, 0.1, 20)}},
                     "name": {"planted": 20, "recall": {"1": estimate(0.4, 0.2, 20), "10": estimate(0.6, 0.2, 20)},
                              "control": {"1": estimate(0.02, 0.02, 20), "10": estimate(0.05, 0.05, 20)}}},
        "records": [record(number) for number in range(30)],
        "defences": defences(),
        "verdict": {"severity": "high", "rule": "high where more than 10 % of the personal data is recovered",
                    "checks": [{"rule": "pii_recall>0.05", "value": 0.376, "failed": True},
                               {"rule": "exact_uncased>0.5", "value": 0.31, "failed": False}]},
        "tags": ["OWASP LLM08:2025", "OWASP LLM09:2026", "MITRE ATLAS AML.T0024"],
        "remediation": [{"what": "Guard the vectors as the texts are guarded", "effect": "not measured"},
                        {"what": "Store 1 bit a number", "effect": "token F1 of the worst attacker 0.62 → 0.30, for "
                         "8.0 % of nDCG@10"}],
        "limits": ["Another inverter may read more.", "400 of 182,340 vectors were looked at."],
    }  # fmt: skip
    if not truth:
        report |= {"scores": {}, "pii": {}, "controls": {}, "by": {}, "headline": {
            "measure": "confidence_good", "label": "share believed good", "estimate": estimate(0.41)}}  # fmt: skip
        report["records"] = [record(n, true_text=None, leaked={}, token_f1=None) for n in range(3)]
    return report
