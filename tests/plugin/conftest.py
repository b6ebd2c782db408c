"""Distributions that are made up on the spot: a module and its metadata in a folder on sys.path."""

import sys

import pytest

from segdeploy.plugin import manager, registry


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function of (distribution, entry point, code): all that it installs goes when the test ends."""
    before = set(sys.modules)
    monkeypatch.delenv("SEGDEPLOY_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    def to_path(distribution, entry_point, code, target=None):
        module = f"made_up_{distribution}"
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{distribution}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[segdeploy]\n{entry_point} = {target or module}\n")
        return module

    forget()
    yield to_path
    forget()
    for name in set(sys.modules) - before:
        if name.startswith("made_up_"):
            del sys.modules[name]


def forget():
    manager.load.cache_clear()
    registry.catalogue.cache_clear()
