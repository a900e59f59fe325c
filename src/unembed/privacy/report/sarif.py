"""The findings of an audit as SARIF 2.1.0 (OASIS, 2020) for code scanning: a result for each check that failed and for
each type of personal data that leaked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unembed.privacy.report.numbers import share

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {"none": "note", "low": "note", "medium": "warning", "high": "error", "critical": "error"}
SCORES = {"none": "0.0", "low": "3.0", "medium": "5.5", "high": "8.0", "critical": "9.5"}
"""security-severity as GitHub reads it: low below 4, medium below 7, high below 9."""
REPORT = "report.json"
"""What a result points to. The store is no file, and code scanning shows only what lies in one."""


@dataclass(frozen=True)
class Finding:
    rule: str
    title: str
    level: str
    message: str
    key: str
    """With the store's name, what makes it the same finding in the next run."""


def as_sarif(report: Mapping[str, Any]) -> str:
    """The findings of a report whose texts are `cleaned`, as JSON."""
    found = [*_failed(report), *_leaked(report)]
    severity = report["verdict"]["severity"]
    tags = {"tags": ["security", "privacy", *(report.get("tags") or [])], "security-severity": SCORES[severity]}
    titles = {finding.rule: finding.title for finding in found}
    rules = [{"id": rule, "shortDescription": {"text": title}, "properties": tags} for rule, title in titles.items()]
    place = {
        "physicalLocation": {"artifactLocation": {"uri": REPORT}, "region": {"startLine": 1}},
        "logicalLocations": [{"fullyQualifiedName": report["target"]["source"], "kind": "resource"}],
    }
    results = [
        {
            "ruleId": finding.rule,
            "ruleIndex": list(titles).index(finding.rule),
            "level": finding.level,
            "message": {"text": finding.message},
            "locations": [place],
            # The name by which GitHub knows it.
            "partialFingerprints": {"primaryLocationLineHash": _mark(report["target"]["source"], finding)},
        }
        for finding in found
    ]
    run = {
        "tool": {"driver": {"name": "unembed", "version": report["unembed"], "rules": rules}},
        "invocations": [{"executionSuccessful": True}],
        "results": results,
        "properties": {"severity": severity, "created": report["created"], "config_hash": report["config_hash"]},
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, ensure_ascii=False) + "\n"


def _failed(report: Mapping[str, Any]) -> list[Finding]:
    return [
        Finding(
            "unembed/check", "A check of the audit failed", "error",
            f"{_plain(check['rule'])} is true: {check['value']:.4g} was measured.", check["rule"],
        )
        for check in report["verdict"].get("checks") or []
        if check["failed"]
    ]  # fmt: skip


def _leaked(report: Mapping[str, Any]) -> list[Finding]:
    level = LEVELS[report["verdict"]["severity"]]
    found = []
    for kind, figures in (report.get("pii") or {}).items():
        recall = figures.get("recall")
        if kind != "any" and recall and recall["value"] > 0:
            message = (
                f"{share(recall)} of {figures['found']} strings of type {_plain(kind)} were read back out of vectors."
            )
            title = f"Personal data of type {kind} can be read out of vectors"
            found.append(Finding(f"unembed/pii/{kind}", title, level, message, ""))
    return found


def _plain(text: str) -> str:
    """A message takes what stands in brackets for a link (section 3.11.6)."""
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")


def _mark(source: str, finding: Finding) -> str:
    return hashlib.sha256("\0".join((source, finding.rule, finding.key)).encode()).hexdigest()[:16] + ":1"
