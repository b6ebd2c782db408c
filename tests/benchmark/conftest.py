"""Planted backends, for this process and the workers that it starts."""

import os
from pathlib import Path

import pytest

from segdeploy.plugin import manager, registry


def forget():
    manager.load.cache_clear()
    registry.catalogue.cache_clear()


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A distribution with the backends of planted.py, on sys.path and PYTHONPATH while a module's tests run."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted_backends.py").write_text((Path(__file__).parent / "planted.py").read_text())
    info = folder / "planted-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[segdeploy]\nplanted = planted_backends\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SEGDEPLOY_PLUGINS", raising=False)
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
        forget()
        yield
    forget()
