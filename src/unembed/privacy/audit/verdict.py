"""What an audit's figures mean: the checks that a run in CI fails on, a severity, and what to do."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unembed.errors import InputError
from unembed.privacy.audit.leakage import ANY, SCORES
from unembed.privacy.audit.pii import TYPES
from unembed.privacy.defences import CLEAN

TAGS = ("OWASP LLM08:2025", "OWASP LLM09:2026", "MITRE ATLAS AML.T0024")
MEASURES = ("pii_recall", *SCORES, "cosine", "confidence_good", "confidence_exact", "verified")
"""What a rule may name; `pii_recall.TYPE` is of one type."""
_WITHOUT_TRUTH = ("confidence_good", "confidence_exact", "verified")
_OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_RULE = re.compile(r"\s*([\w.]+)\s*(>=|<=|>|<)\s*([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)\s*")
LEVELS = (("critical", 0.5), ("high", 0.2), ("medium", 0.05), ("low", 0.0))
SEVERITIES = ("none", "low", "medium", "high", "critical")
_RULES = (
    "critical from 50, high from 20, medium from 5 percentage points {what}, low below that; none where the "
    "inverter's interval does not lie above it"
)


@dataclass(frozen=True)
class Check:
    """A rule such as `pii_recall>0.05`, which fails where it is true."""

    rule: str
    measure: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, rule: str) -> Check:
        """Raises InputError for what is no rule, and for a measure that does not exist."""
        match = _RULE.fullmatch(rule)
        if match is None:
            raise InputError(f"cannot read the rule '{rule}': write it like pii_recall>0.05 or exact_uncased>=0.01")
        measure, sign, bound = match.groups()
        name, _, kind = measure.partition(".")
        if name not in MEASURES or (kind and name != "pii_recall"):
            raise InputError(f"no measure is called '{measure}': choose {', '.join(MEASURES)}, or pii_recall.TYPE")
        if kind and kind not in TYPES:
            raise InputError(f"no type of personal data is called '{kind}': choose {', '.join(TYPES)}")
        return cls(rule, measure, sign, float(bound))

    @property
    def needs_truth(self) -> bool:
        return self.measure not in _WITHOUT_TRUTH

    @property
    def needs_calibration(self) -> bool:
        return self.measure in ("confidence_good", "confidence_exact")

    def apply(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """The rule, the measured value and whether it fails. Where the true texts hold nothing of a type, 0 of it was
        recovered. Raises InputError for a measure that this report does not have."""
        value = _value(report, self.measure)
        if value is None:
            raise InputError(
                f"the rule '{self.rule}' cannot be judged: the model has no calibration (unembed calibrate)"
            )
        return {"rule": self.rule, "value": value, "failed": bool(_OPERATORS[self.sign](value, self.bound))}


def _value(report: Mapping[str, Any], measure: str) -> float | None:
    name, _, kind = measure.partition(".")
    if name == "pii_recall":
        return report["pii"][kind or ANY]["recall"]["value"] if (kind or ANY) in report["pii"] else 0.0
    if name in _WITHOUT_TRUTH:
        estimate = report["confidence"].get(name.removeprefix("confidence_"))
    else:
        estimate = report["scores"].get(name)
    return None if estimate is None else estimate["value"]


def headline(report: Mapping[str, Any]) -> dict[str, Any]:
    """The one figure to look at: recall of personal data; of texts without any, or where no more of it came back than
    could be guessed while the texts themselves did, token F1; without the true texts the share believed to be good,
    or, of a model without a calibration, verified exact."""
    if report["truth"]:
        levels = _levels(report)
        if "pii_recall" in levels and (levels["pii_recall"] != "none" or levels["token_f1"] == "none"):
            label = "personal data of the true texts that stands in the reconstructions"
            return {"measure": "pii_recall", "label": label, "estimate": report["pii"][ANY]["recall"]}
        why = "no more personal data came back than could be guessed"
        if "pii_recall" not in levels:
            why = "no personal data was recognised in the true texts"
        label = f"token F1 of the reconstructions ({why})"
        return {"measure": "token_f1", "label": label, "estimate": report["scores"]["token_f1"]}
    if "good" in report["confidence"]:
        label = "share of reconstructions believed good (token F1 ≥ 0.8), by calibrated confidence; nothing is verified"
        return {"measure": "confidence_good", "label": label, "estimate": report["confidence"]["good"]}
    label = "share of reconstructions that re-embed exactly to their vector"
    return {"measure": "verified", "label": label, "estimate": report["confidence"]["verified"]}


def severity(report: Mapping[str, Any]) -> tuple[str, str]:
    """(severity, the rule it follows from). With the true texts what counts is how far recall of personal data or
    token F1 lies above the best control; without them, the share believed good or verified exact."""
    if report["truth"]:
        rule = _RULES.format(what="of personal data or token F1 above the best control")
        levels = list(_levels(report).values())
    else:
        rule = _RULES.format(what="of reconstructions believed good or verified exact")
        found = [report["confidence"][name] for name in ("good", "verified") if name in report["confidence"]]
        levels = [_level(estimate, 0.0) for estimate in found]
    return max(levels, key=SEVERITIES.index), rule


def _levels(report: Mapping[str, Any]) -> dict[str, str]:
    """How severe recall of personal data, where there was any to recall, and token F1 are, above the best control."""
    ours = {"pii_recall": report["pii"].get(ANY, {}).get("recall"), "token_f1": report["scores"]["token_f1"]}
    controls = report["controls"].values()
    return {
        name: _level(estimate, max((_of_control(control, name) for control in controls), default=0.0))
        for name, estimate in ours.items()
        if estimate is not None
    }


def _of_control(control: Mapping[str, Any], name: str) -> float:
    estimate = control["pii_recall"] if name == "pii_recall" else control["scores"][name]
    return estimate["value"] if estimate else 0.0


def _level(ours: Mapping[str, Any], best: float) -> str:
    least = ours["value"] if ours["low"] is None else ours["low"]
    return next(name for name, above in LEVELS if ours["value"] - best >= above) if least > best else "none"


def remediation(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """What lowers the risk, each with its measured effect where a comparison of defences was given."""
    unmeasured = "not measured here"
    out = [
        {
            "what": "Guard the vectors like the texts: the same access control, encrypted at rest, and not in answers "
            "of an API that do not need them.",
            "effect": "who cannot read a vector cannot invert it; " + unmeasured,
        },
        {"what": "Delete a vector together with its document.", "effect": unmeasured},
    ]
    if beside := [field["name"] for field in report["target"]["fields"]]:
        what = f"Look at what lies beside the vectors in plain text: {', '.join(beside[:8])}."
        out.insert(0, {"what": what, "effect": "readable without any inversion"})
    table = report.get("defences")
    return out + (_measured(table) if table else [_defend()])


def _defend() -> dict[str, str]:
    what = "Change vectors before they are stored: measure what that buys with unembed defend (--defences here)."
    return {"what": what, "effect": "not measured here"}


def _measured(table: Mapping[str, Any]) -> list[dict[str, str]]:
    """Up to five of the settings that were compared, the one that keeps most back first."""
    clean = next((leak for leak in table["leaks"] if leak["defence"] == CLEAN), None)
    if clean is None:
        raise InputError("the report of unembed defend holds no figure without a defence: give a complete one")
    before, rows = clean["scores"]["token_f1"]["value"], []
    for leak in table["worst"]:
        if leak["defence"] != CLEAN:
            after = leak["scores"]["token_f1"]["value"]
            effect = (
                f"token F1 {before:.2f} → {after:.2f} under its worst attacker ({leak['attacker']}), at "
                f"{100 * leak['loss']:.1f} % loss of nDCG@10"
            )
            what = f"Store vectors through {leak['defence']} (setting {leak['strength']:.4g})."
            rows.append((after, {"what": what, "effect": effect}))
    return [row for _, row in sorted(rows, key=lambda entry: entry[0])[:5]]


def limits(report: Mapping[str, Any], languages: Sequence[str]) -> list[str]:
    """What the figures do not say. languages: those whose names a model recognises."""
    target, model = report["target"], report["threat_model"]
    out = [
        "A lower bound: another model, more queries or more known texts may read more.",
        f"{target['usable']} vectors of {target['count'] or 'an unknown number'} were attacked; intervals are 95 % "
        "bootstraps over them and say nothing about other stores. Where none of n was found, about 3/n may still be.",
        "Personal data is what patterns, checksums and "
        + (f"spaCy's models ({', '.join(languages)}) recognise" if languages else "capitals tell")
        + "; addresses, diagnoses and names written in small letters, for example, are not among it.",
    ]
    if not report["truth"]:
        out.insert(0, "The true texts are not known: no reconstruction is verified but those that re-embed exactly.")
    elif unknown := sum(record["true_text"] is None for record in report["records"]):
        out.insert(0, f"{unknown} of the vectors have no true text: they are in no figure but the confidence.")
    if report["truth"] and ANY not in report["pii"]:
        out.append("No personal data was recognised in the true texts, so none could be recovered.")
    if not model["steps"]:
        out.append(
            "The inverter wrote each text at once (0 steps); with --steps 20 it asks the embedder and reads more."
        )
    if target["embedder"]["plausible"] is None:
        out.append("Whether the vectors are the embedder's could not be checked.")
    return out
