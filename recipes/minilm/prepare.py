"""Make training text ready: cleaned, without doubles, nothing that stands in a held-out set, shuffled, in small shards.

    python recipes/minilm/prepare.py DATA_DIR OUTPUT_DIR [--config recipes/minilm/gpu.yaml]

Reads the corpora of a recipe from DATA_DIR and writes each to a folder of its own under OUTPUT_DIR, as
NAME/000.txt.xz, 001.txt.xz, …, together with manifest.json. A passage is left out when it occurred before, or when it
shares a run of ten words with a text of DATA_DIR/heldout. A folder that is complete is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from unembed.cli.console import console
from unembed.metrics import words
from unembed.training.config import SourceConfig
from unembed.training.corpora import read_texts

RUN = 10
"""Words in a row that two texts may not share."""
SHARD = 40_000_000
"""Bytes of text in a shard: about a third of it compressed."""
MANIFEST = "manifest.json"


def runs(text: str) -> Iterator[bytes]:
    """A digest of each run of RUN words (all of them, where there are fewer), case and punctuation aside."""
    found = words(text)
    for start in range(max(1, len(found) - RUN + 1)):
        yield hashlib.blake2b(" ".join(found[start : start + RUN]).encode(), digest_size=8).digest()


def clean(texts: Iterable[str], forbidden: set[bytes], counts: dict[str, int]) -> Iterator[str]:
    """The texts to keep; `counts` says what became of all."""
    seen: set[bytes] = set()
    for text in texts:
        counts["read"] += 1
        digest = hashlib.blake2b(" ".join(words(text)).encode(), digest_size=16).digest()
        if digest in seen:
            counts["doubles"] += 1
        elif any(run in forbidden for run in runs(text)):
            counts["held_out"] += 1
        else:
            seen.add(digest)
            counts["kept"] += 1
            yield text


def write(texts: list[str], folder: Path) -> None:
    """Shards of about SHARD bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    number, size, lines = 0, 0, []
    for i, text in enumerate(texts):
        lines.append(text)
        size += len(text.encode()) + 1
        if size >= SHARD or i == len(texts) - 1:
            with lzma.open(folder / f"{number:03}.txt.xz", "wt", encoding="utf-8", preset=6) as file:
                file.write("\n".join(lines) + "\n")
            number, size, lines = number + 1, 0, []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "gpu.yaml")
    parser.add_argument("--limit", type=int, help="read at most this many texts of each corpus")
    args = parser.parse_args()
    config = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    todo = [source for source in config["corpora"] if not (args.output / source["path"] / MANIFEST).is_file()]
    if not todo:
        return
    forbidden = {
        run
        for path in config["heldout"]
        for text in read_texts(SourceConfig(str(args.data / path)))
        for run in runs(text)
    }
    for source in todo:
        folder = args.output / source["path"]
        # The recipe names folders of shards; the raw file has the same name and an ending.
        raw = sorted(path for path in args.data.glob(f"{source['path']}.*") if path.is_file())
        if not raw:
            parser.error(f"{args.data}/{source['path']}.txt (.xz, .gz, .jsonl, .parquet) is missing: copy it there")
        counts = dict.fromkeys(("read", "kept", "doubles", "held_out"), 0)
        texts = list(clean(read_texts(SourceConfig(str(raw[0]), limit=args.limit)), forbidden, counts))
        random.Random(0).shuffle(texts)
        write(texts, folder)
        (folder / MANIFEST).write_text(json.dumps({"source": raw[0].name, **counts}), encoding="utf-8")
        console().print(f"{source['path']}: {counts}", markup=False)


if __name__ == "__main__":
    main()
