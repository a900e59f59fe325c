"""The report of an audit, for people (HTML, Markdown) and for CI (SARIF, JUnit)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unembed.privacy.report.cleaning import cleaned
from unembed.privacy.report.content import page
from unembed.privacy.report.html import as_html
from unembed.privacy.report.junit import as_junit
from unembed.privacy.report.markdown import as_markdown
from unembed.privacy.report.sarif import as_sarif
from unembed.results import write_report


def write(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write report.html, report.md, report.sarif and report.junit.xml into an existing folder, each as a whole or not
    at all, in the place of older ones; returns their paths.

    `report` is what `unembed audit` writes as report.json. Nothing is redacted here. Raises StorageError.
    """
    report = cleaned(report)
    shown = page(report)
    texts = {
        "report.html": as_html(shown),
        "report.md": as_markdown(shown),
        "report.sarif": as_sarif(report),
        "report.junit.xml": as_junit(report),
    }
    for name, text in texts.items():
        write_report(folder / name, text)
    return [folder / name for name in texts]
