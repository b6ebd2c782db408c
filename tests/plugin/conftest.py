"""These tests count what is there: segdeploy's own distributions, which may be installed, are out of sight."""

import importlib.metadata

import pytest

from segdeploy.plugin import manager, registry

HIDDEN = {
    "segdeploy-deeplabv3plus",
    "segdeploy-mlflow",
    "segdeploy-openvino",
    "segdeploy-realtime",
    "segdeploy-template",
}


def hidden(dist):
    try:
        return dist.name in HIDDEN
    except (UnicodeDecodeError, KeyError, OSError):  # broken on purpose
        return False


@pytest.fixture(autouse=True)
def out_of_sight(monkeypatch):
    """Discovery as on a machine that has none of them."""
    every = importlib.metadata.distributions
    monkeypatch.setattr(
        importlib.metadata, "distributions", lambda **about: (d for d in every(**about) if not hidden(d))
    )
    manager.load.cache_clear()
    registry.catalogue.cache_clear()
    yield
    manager.load.cache_clear()
    registry.catalogue.cache_clear()
