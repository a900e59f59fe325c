"""The checks of an audit as JUnit's XML, which every CI server reads: a test case for each check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree


def as_junit(report: Mapping[str, Any]) -> str:
    """The checks of a report whose texts are `cleaned`: what XML 1.0 cannot hold is written out there already."""
    checks = report["verdict"].get("checks") or []
    counts = {"tests": len(checks), "failures": sum(check["failed"] for check in checks), "errors": 0, "skipped": 0}
    attributes = {"name": "unembed audit", "time": f"{report['run']['seconds']:.3f}", "timestamp": report["created"]}
    suite = ElementTree.Element("testsuite", {**attributes, **{name: str(n) for name, n in counts.items()}})
    properties = ElementTree.SubElement(suite, "properties")
    facts = {
        "target": report["target"]["source"],
        "severity": report["verdict"]["severity"],
        "config_hash": report["config_hash"],
    }
    for name, value in facts.items():
        ElementTree.SubElement(properties, "property", name=name, value=value)
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname="unembed.audit", name=check["rule"], time="0")
        if check["failed"]:
            said = f"{check['rule']} is true: {check['value']:.4g} was measured"
            ElementTree.SubElement(case, "failure", message=said, type="check").text = said
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"
