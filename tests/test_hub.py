"""Publishing and fetching models, against a hub that runs here: a small server that speaks the hub's HTTP API and
really keeps the files. `huggingface_hub` itself is the client."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np
import pytest
import torch

from unembed.checkpoints import load_model, native
from unembed.embedders.spec import EmbedderSpec
from unembed.models.lexicon import Lexicon
from unembed.models.native import NativeConfig, NativeModel, NativeNetwork
from unembed.models.native.guide import Guide
from unembed.models.native.tokenizer import TextTokenizer

WRITER, READER = "hf_writerwriterwriterwriter", "hf_readerreaderreaderreader"
CPU = torch.device("cpu")


class Hub(ThreadingHTTPServer):
    """Repositories, large files by hash, and how many bytes of the next large file are sent before the line is cut."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos, self.blobs, self.cut, self.seen = {}, {}, None, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


def mode_of(path):
    return "lfs" if path.endswith(".safetensors") else "regular"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, code, body=b"", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body)), "Connection": "close"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, code, kind=""):
        self.answer(code, {"error": kind}, **({"X-Error-Code": kind} if kind else {}))

    @property
    def token(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def repo(self, name):
        """The repository as far as this caller may see it."""
        repo = self.server.repos.get(name)
        return repo if repo and (not repo["private"] or self.token == WRITER) else None

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.blobs[self.path.rpartition("/")[2]] = body
        self.answer(200)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, hub = urlparse(self.path).path, self.server
        if self.token != WRITER:
            return self.refuse(401 if not self.token else 403)
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            known = name in hub.repos
            hub.repos.setdefault(name, {"private": private, "files": {}, "sha": "0" * 40})
            return self.answer(409 if known else 200, {"url": f"{hub.url}/{name}"})
        if found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "shouldIgnore": False, "uploadMode": mode_of(f["path"])} for f in files]
            return self.answer(200, {"files": modes})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [{**o, "actions": {"upload": {"href": f"{hub.url}/lfs/{o['oid']}"}}}
                       for o in json.loads(body)["objects"]]  # fmt: skip
            return self.answer(200, {"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            repo = hub.repos[found[1]]
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    repo["files"][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    repo["files"][value["path"]] = hub.blobs[value["oid"]]
            repo["sha"] = hashlib.sha1(body).hexdigest()
            url = f"{hub.url}/{found[1]}/commit/{repo['sha']}"
            return self.answer(200, {"commitUrl": url, "commitOid": repo["sha"], "success": True})
        return self.refuse(404)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, query = unquote(urlparse(self.path).path), parse_qs(urlparse(self.path).query)
        self.server.seen.append((self.command, path))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.+|/tree/.+)?", path):
            repo = self.repo(found[1])
            if repo is None:
                return self.refuse(401, "RepoNotFound")
            files = repo["files"]
            if found[2] and found[2].startswith("/tree"):
                tree = [{"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                        for name, data in files.items()]  # fmt: skip
                return self.answer(200, tree)
            siblings = [{"rfilename": name} for name in files]
            return self.answer(
                200, {"id": found[1], "sha": repo["sha"], "private": repo["private"], "siblings": siblings}
            )
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            repo = self.repo(found[1])
            if repo is None or found[2] not in repo["files"]:
                return self.refuse(404, "EntryNotFound" if repo else "RepoNotFound")
            return self.send_file(repo, repo["files"][found[2]])
        return self.refuse(404, str(query))

    def send_file(self, repo, data):
        whole, start = len(data), 0
        if asked := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(asked[1])
        headers = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": repo["sha"],
            "Accept-Ranges": "bytes",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        if self.command == "GET" and self.server.cut is not None and whole > 10_000:
            self.send_response(206 if start else 200)
            for name, value in (headers | {"Content-Length": str(whole - start)}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[start : start + self.server.cut])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        return self.answer(206 if start else 200, data[start:], **headers)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub of its own, in the place of the public one, and an empty cache."""
    from huggingface_hub import constants

    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the other protocol for large files has its own servers
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", WRITER)
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A small native model's folder."""
    tokenizer = TextTokenizer.train(["The cat sat on the mat."] * 3, 320)
    torch.manual_seed(0)
    net = NativeNetwork(NativeConfig(16, tokenizer.vocab_size, 64, 2, 2, 3, 2, 12)).eval()
    model = NativeModel(net, tokenizer, EmbedderSpec("toy-embedder", 16, prefix="query: "))
    model.controls = ["one text", "another"]
    model.guide = Guide(16, 8, tokenizer.vocab_size)
    model.lexicon = Lexicon(["cat", "mat"], np.ones((2, 16), dtype=np.float32))
    folder = tmp_path_factory.mktemp("toy") / "model"
    native.save(model, folder)
    return folder


@pytest.fixture
def folder(toy, tmp_path):
    shutil.copytree(toy, tmp_path / "mine")
    return tmp_path / "mine"


def test_what_is_pushed_is_pulled_and_loads(hub, folder, command, tmp_path):
    (folder / "optimizer.safetensors.tmp").write_bytes(b"x")
    (folder / ".env").write_text("SECRET=1")
    (folder / "recovered.jsonl").write_text('{"text": "somebody\'s letter"}\n')
    code, out, err = command("push", folder, "acme/inverter")
    assert code == 0, err
    assert f"{hub.url}/acme/inverter" in out
    assert "left here: .env optimizer.safetensors.tmp recovered.jsonl" in out
    assert "mind: controls.jsonl holds 2 texts of the training data, word for word" in out
    repo = hub.repos["acme/inverter"]
    assert not repo["private"]
    weights = {"model.safetensors", "guide.safetensors", "lexicon.safetensors"}
    sent = {"config.json", *weights, "tokenizer.json", "controls.jsonl", "README.md"}
    assert set(repo["files"]) == sent
    assert all(repo["files"][name] == (folder / name).read_bytes() for name in sent - {"README.md"})
    card = repo["files"]["README.md"].decode()
    assert "| dimensions | 16 |" in card and "`toy-embedder`" in card and "prefix 'query: '" in card
    assert "licen" not in card.lower() and "## Figures" not in card and not (folder / "README.md").exists()

    code, out, _ = command("models", "pull", "acme/inverter", tmp_path / "theirs")
    assert code == 0 and out.strip() == str(tmp_path / "theirs")
    code, cache, _ = command("models", "pull", "acme/inverter")
    assert code == 0
    for place in (tmp_path / "theirs", Path(cache.strip())):
        assert all((place / name).read_bytes() == repo["files"][name] for name in sent)
        assert list(load_model(place, CPU).controls) == ["one text", "another"]
    assert load_model("acme/inverter", CPU).spec.id == "toy-embedder"
    before = len([path for verb, path in hub.seen if verb == "GET" and "/resolve/" in path])
    assert command("models", "pull", "acme/inverter", tmp_path / "theirs")[0] == 0
    assert len([path for verb, path in hub.seen if verb == "GET" and "/resolve/" in path]) == before  # nothing anew


def test_a_card_of_ones_own_is_kept_and_figures_are_in_a_made_one(hub, folder, command):
    shutil.copyfile(Path(native.__file__).parents[1] / "weights/minilm/figures.json", folder / "figures.json")
    assert command("push", folder, "acme/figures")[0] == 0
    card = hub.repos["acme/figures"]["files"]["README.md"].decode()
    assert "| texts | tokens | steps | n | token F1 |" in card and re.search(r"^\| en_squad_dev.* \| 8 \| ", card, re.M)
    (folder / "README.md").write_text("# By hand\n")
    code, out, _ = command("push", folder, "acme/figures")
    assert code == 0 and "made now" not in out
    assert hub.repos["acme/figures"]["files"]["README.md"] == b"# By hand\n"
    (folder / "figures.json").write_text("[{}]")
    assert command("push", folder, "acme/figures")[0] == 2


def test_private_is_private(hub, folder, command, refused, monkeypatch):
    assert command("push", folder, "acme/secret", "--private")[0] == 0
    assert hub.repos["acme/secret"]["private"]
    assert command("push", folder, "acme/open")[0] == 0
    hub.repos["acme/open"]["files"].clear()
    assert "acme/open is on the hub already and public" in refused_push(command, folder, "acme/open", "--private")
    assert hub.repos["acme/open"]["files"] == {}
    monkeypatch.setenv("HF_TOKEN", READER)
    message = refused("models", "pull", "acme/secret")
    assert "there is none of that name, or it is private" in message and "hf auth login" in message


def refused_push(command, *arguments):
    """The line with which a push is refused; what it would have published is said before that."""
    code, _, err = command("push", *arguments)
    assert code == 2 and err.startswith("unembed: error: ") and err.count("\n") == 1, err
    return err


def test_who_may_not_push(hub, folder, command, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "does not let this token do that (403)" in refused_push(command, folder, "acme/a")
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login (or set HF_TOKEN)" in refused_push(command, folder, "acme/a")
    assert hub.repos == {}


def test_what_must_not_be_pushed(hub, folder, command, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["training"] = {"corpus": "/home/ann/letters.txt"}
    (folder / "config.json").write_text(json.dumps(config))
    code, out, _ = command("push", folder, "acme/a", "--dry-run")
    assert code == 0 and "mind: config.json names a place on this machine: /home/ann/letters.txt" in out
    assert hub.repos == {}
    for secret in ({"note": "hf_" + "a" * 34}, {"hub_token": "0123456789abcdef"}):
        (folder / "config.json").write_text(json.dumps(config | secret))
        assert "seems to hold a token or password" in refused_push(command, folder, "acme/a")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "models convert" in refused_push(command, folder, "acme/a")
    assert "no name on the hub" in refused_push(command, folder, "acme")
    assert "there is no folder" in refused_push(command, tmp_path / "nowhere", "acme/a")
    assert hub.repos == {}


def test_what_is_not_there_to_pull(hub, folder, refused, tmp_path):
    assert "there is none of that name" in refused("models", "pull", "acme/nothing")
    assert "is not on the hub" in refused("models", "pull", "minilm")
    (tmp_path / "mine2").mkdir()
    (tmp_path / "mine2" / "letter.txt").write_text("dear")
    assert "choose another folder" in refused("models", "pull", "acme/nothing", tmp_path / "mine2")
    assert "unknown model" in refused("models", "info", "nothing")


def test_an_interrupted_download_goes_on(hub, folder, command, refused, tmp_path):
    assert command("push", folder, "acme/inverter")[0] == 0
    hub.cut = 5000
    code, out, err = command("models", "pull", "acme/inverter", tmp_path / "theirs")
    last = err.splitlines()[-1]  # before it are the bars of the download
    assert (code, out) == (2, "") and "the connection was lost; give the same command again" in last, err
    assert not (tmp_path / "theirs" / "model.safetensors").exists()
    assert "missing" in refused("invert", "--text", "a", "--model", tmp_path / "theirs")
    hub.cut = None
    assert command("models", "pull", "acme/inverter", tmp_path / "theirs")[0] == 0
    assert (tmp_path / "theirs" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_hub_that_cannot_be_reached(hub, folder, command, refused, tmp_path):
    assert command("push", folder, "acme/inverter")[0] == 0
    kept = command("models", "pull", "acme/inverter")[1]
    hub.shutdown()
    hub.server_close()
    for arguments in (("models", "pull", "acme/other"), ("invert", "--text", "a", "--model", "acme/other")):
        message = refused(*arguments)
        assert "the hub cannot be reached" in message and "HF_ENDPOINT" in message and "give its path" in message
    assert "the hub cannot be reached" in refused_push(command, folder, "acme/inverter")
    assert command("models", "pull", "acme/inverter")[:2] == (0, kept)  # what is on this machine is enough


def test_the_hub_is_the_one_that_HF_ENDPOINT_names(hub, folder, tmp_path):  # noqa: N802
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": WRITER}
    env = os.environ | settings | {"HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "unembed.cli.main"]
    for words in (["push", str(folder), "acme/env"], ["models", "pull", "acme/env", str(tmp_path / "got")]):
        done = subprocess.run([*command, *words], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "got" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


# --- known models ---


def test_public_checkpoints_are_listed_and_described(command, refused, parity_dir):
    from unembed.checkpoints import PAIRS
    from unembed.checkpoints.public import PUBLIC, SINGLES

    code, out, _ = command("models", "list")
    assert code == 0 and all(known.name in out and known.embedder in out for known in PUBLIC)
    assert len({known.name.lower() for known in PUBLIC}) == len(PUBLIC) == len(PAIRS) + len(SINGLES)
    assert all(hub_id.count("/") == 1 for known in PUBLIC for hub_id in known.ids)
    code, out, _ = command("models", "info", "GTR-base-st")
    assert code == 0 and "licence Apache-2.0" in out
    assert "unembed models pull ielabgroup/vec2text_gtr-base-st_corrector" in out
    assert "did you mean 'gtr-base-st'" in refused("models", "path", "gtr-base-stt")
    assert "'jxm/gtr-32-noise-0.1'" in refused("models", "path", "gtr-32-noise-0.1")

    folder = parity_dir / "vec2text" / "jxm"
    code, out, _ = command("models", "info", f"{folder / 'gtr__nq__32'}+{folder / 'gtr__nq__32__correct'}")
    rows = dict(re.findall(r"^(\w[\w ]*?) +│ (.*?) *$", out, re.M))
    assert code == 0 and "corrector: needs a hypothesizer" in out and "hub_token" not in out
    assert (rows["T5"], rows["dimensions"], rows["longest text"]) == ("64 wide, 2 layers", "768", "32 tokens")
    assert "gtr-t5-base#raw (mean pooling, not normalised)" in rows["embedder"]
    code, out, _ = command("models", "info", parity_dir / "nanov2t" / "stage1")
    assert code == 0 and "tiny-embedder" in out and "│ 40" in out and "0.2M" in out


def test_convert_by_command(command, refused, parity_dir, tmp_path):
    source = parity_dir / "nanov2t" / "stage1"
    code, out, _ = command("models", "convert", source, tmp_path / "copy", "--format", "nanov2t")
    assert code == 0 and out.strip() == str(tmp_path / "copy") and (tmp_path / "copy" / "model.safetensors").is_file()
    assert "keeps its format" in refused("models", "convert", source, tmp_path / "x", "--format", "vec2text")
    assert "unembed models convert SOURCE DEST" in refused("models", "convert", source)
