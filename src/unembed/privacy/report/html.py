"""The report of an audit as one HTML file: no script, nothing fetched, every text escaped by Jinja2."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from unembed.privacy.report.blocks import Bars, Failed, Page, Quoted, Scatter
from unembed.privacy.report.svg import bars, scatter


def as_html(page: Page) -> str:
    return _template().render(page=page)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("unembed.privacy.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"cell": _cell, "plot": _plot, "tight": _tight}
    environment.tests |= {"kind": lambda block, name: type(block).__name__ == name}
    return environment.get_template("audit.html.j2")


def _cell(text: str) -> Markup:
    """A value as its kind of text asks for: what comes from outside cannot turn the direction of what is around it."""
    if isinstance(text, Quoted):
        return Markup("<bdi>{}</bdi>").format(str(text))
    if isinstance(text, Failed):
        return Markup('<strong class="failed">{}</strong>').format(str(text))
    return _tight(text)


def _tight(text: str) -> Markup:
    """A number and its percent sign stay on one line."""
    return Markup("{}").format(text.replace(" %", "\N{NO-BREAK SPACE}%"))


def _plot(block: Bars | Scatter, name: str) -> Markup:
    return scatter(block, name) if isinstance(block, Scatter) else bars(block, name)
