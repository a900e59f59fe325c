"""The line that brings a missing extra, from where unembed itself came from."""

import importlib.metadata
import json

import pytest

from unembed.errors import install_line


class Installed:
    def __init__(self, origin):
        self.origin = origin

    def read_text(self, name):
        return {"direct_url.json": self.origin}.get(name)


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, "pip install 'unembed[audit]'"),
        ({"url": "file:///my%20clone", "dir_info": {}}, "pip install '/my clone[audit]'"),
        ({"url": "file:///clone", "dir_info": {"editable": True}}, "pip install -e '/clone[audit]'"),
        (
            {"url": "https://host/unembed.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            "pip install 'unembed[audit] @ git+https://host/unembed.git'",
        ),
        (
            {"url": "file:///wheels/unembed-1-py3-none-any.whl", "archive_info": {}},
            "pip install 'unembed[audit] @ file:///wheels/unembed-1-py3-none-any.whl'",
        ),
        ("{broken", "pip install 'unembed[audit]'"),
    ],
)
def test_the_extra_comes_from_where_the_package_came_from(origin, line, monkeypatch):
    stated = origin if origin is None or isinstance(origin, str) else json.dumps(origin)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(stated))
    assert install_line("audit") == line


def test_a_package_that_was_never_installed(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert install_line("audit") == "pip install 'unembed[audit]'"
