"""Each hook is exercised by the example in its own docstring, and printed in the author's guide."""

import inspect
from pathlib import Path
from textwrap import dedent

import click
import pytest
from click.testing import CliRunner

from segdeploy.plugin import describe, hookspecs, registry

GUIDE = Path(__file__).parents[2] / "plugins" / "README.md"
HOOKS = [name for name in vars(hookspecs) if name.startswith("segdeploy_")]
# What the examples speak of and leave out.
REST = """
from segdeploy.plugin import Section
class SmallConfig(Section): ...
class PlainConfig(Section): ...
class Small: ...
class Plain: ...
class Fast: ...
"""


@pytest.fixture
def example(install):
    """A function of (hook, kind) that installs the example and gives what it registered, by name."""

    def registered(kind):
        doc = inspect.getdoc(getattr(hookspecs, f"segdeploy_register_{kind}s"))
        code = "\n".join(line for line in doc.splitlines() if line.startswith("    ") or not line)
        install("example", f"{kind}.example", REST + dedent(code))
        known = registry.catalogue(kind)
        assert known.failures == ()
        return {n: p for n, p in known.plugins.items() if known.owners[n].distribution == "example"}

    return registered


def test_hook_register_encoders(example):
    (plugin,) = example("encoder").values()
    assert (plugin.name, plugin.build.__name__, registry.encoder("small")) == ("small", "Small", plugin)


def test_hook_register_decoders(example):
    (plugin,) = example("decoder").values()
    assert (plugin.name, plugin.config().model_dump(), registry.decoder("plain")) == ("plain", {}, plugin)


def test_hook_register_backends(example):
    (plugin,) = example("backend").values()
    assert (plugin.name, plugin.artifact, registry.backend("fast")) == ("fast", "onnx", plugin)
    assert plugin.available().reason == "needs fastengine; pip install fastengine"


def test_hook_register_commands(example):
    (command,) = example("command").values()
    assert isinstance(command, click.Command)
    assert CliRunner().invoke(command).output == "good day\n"


def test_hook_register_trackers(example, tmp_path):
    (plugin,) = example("tracker").values()
    tracker = registry.tracker("lines").open(tmp_path, {})
    tracker.epoch({"epoch": 1, "validation_mean_iou": 0.25})
    tracker.close(finished=True)
    assert (plugin.name, (tmp_path / "lines.txt").read_text()) == ("lines", "1 0.2500\n")


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_test(name):
    assert f"test_hook_{name.removeprefix('segdeploy_')}" in globals()


def test_guide_has_the_hooks_as_they_are():
    text = GUIDE.read_text(encoding="utf-8")
    new = describe.with_block(text, "hooks", describe.hooks_markdown())
    assert new == text, "python -m segdeploy.plugin.describe plugins/README.md rewrites them"
    for name in HOOKS:
        assert f"\n### `{name}(" in text


def test_only_what_stands_between_the_markers_is_rewritten():
    begin, end = "<!-- x:begin -->", "<!-- x:end -->"
    new = describe.with_block(f"a\n{begin}\nold\n{end}\nb\n", "x", "new\n")
    assert new == f"a\n{begin}\n\nnew\n\n{end}\nb\n"
    assert describe.with_block(new, "x", "new\n") == new
    for text in ("none", begin, f"{end}{begin}", begin + new):
        with pytest.raises(ValueError, match="expected the lines"):
            describe.with_block(text, "x", "new")
