"""The author's guide is run as printed: its two files become a distribution that trains' own code path builds."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from segdeploy.plugin import hookspecs, manager, registry

GUIDE = (Path(__file__).parents[2] / "plugins" / "README.md").read_text()


def block(kind, number=0):
    return re.findall(rf"^```{kind}\n(.*?)^```", GUIDE, re.M | re.S)[number]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    project = tomllib.loads(block("toml"))["project"]
    (name, module) = next(iter(project["entry-points"]["segdeploy"].items()))
    (tmp_path / f"{module}.py").write_text(block("python"))
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[segdeploy]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(tmp_path)
    manager.load.cache_clear()
    registry.catalogue.cache_clear()
    yield project
    manager.load.cache_clear()
    registry.catalogue.cache_clear()


CONFIG = """
input_features:
  - {name: image, type: image, preprocessing: {height: 33, width: 47}, encoder: {type: unet, base_channels: 4}}
output_features:
  - {name: mask, type: image, preprocessing: {num_classes: 3}, decoder: {type: plain}}
"""


def test_guides_decoder_is_found_configured_and_built(installed):
    import torch

    from segdeploy.config import parse_config
    from segdeploy.errors import ConfigError
    from segdeploy.model.segmenter import from_config

    config = parse_config(CONFIG)
    spec, model = from_config(config, config.mask.preprocessing.class_map())
    assert model(torch.randn(2, 3, 33, 47)).shape == (2, 3, 33, 47)
    assert (spec.decoder.distribution, spec.decoder.version) == ("segdeploy-plain", "1.0")
    with pytest.raises(ConfigError, match=r"decoder\.width: unknown key"):
        parse_config(CONFIG, overrides=["decoder.width=8"])


def test_ten_lines_are_ten():
    code = [line for line in block("python").splitlines() if line and "import" not in line]
    assert len(code) <= 10


def test_guides_keys_are_described_and_bounded(install):
    from segdeploy.plugin.describe import describe_section

    # A description is read from the source, so the block becomes a file.
    module = install("keys", "decoder.keys", "from segdeploy.plugin import Section\n" + block("python", 1))
    assert describe_section(importlib.import_module(module).PlainConfig).splitlines()[2:] == [
        "  width: integer >= 8 <= 512, default 32",
        "      Channels.",
    ]


def test_hooks_are_named_in_the_guide():
    hooks = {name for name in vars(hookspecs) if name.startswith("segdeploy_")}
    assert len(hooks) == 5
    assert set(re.findall(r"segdeploy_register_\w+", GUIDE)) == hooks
