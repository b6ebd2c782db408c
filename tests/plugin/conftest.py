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

    def to_path(distribution, entry_point, code, target=None, version="1.5", requires=(), folder=tmp_path):
        module = f"made_up_{distribution}"
        folder.mkdir(exist_ok=True)
        (folder / f"{module}.py").write_text(code)
        info = folder / f"{distribution}-{version}.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{needs}"
        (info / "METADATA").write_text(metadata)
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
