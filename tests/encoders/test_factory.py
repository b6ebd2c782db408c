"""Networks that a Python function makes."""

import pytest
import torch

from segdeploy.decoders.logits import Logits, LogitsConfig
from segdeploy.encoders.factory import TRUSTED, FactoryConfig, FactoryNetwork, build, call, logits_in
from segdeploy.errors import ConfigError, MissingPartError
from segdeploy.plugin import FeatureMap

MODULE = """
from pathlib import Path
from torch import nn

Path(__file__).with_suffix(".imported").touch()

def make():
    return nn.Conv2d(3, 4, 3, 2, 1)

def word():
    return "a network"

def fails():
    raise RuntimeError("no such weights\\nand more")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "makes_networks.py").write_text(MODULE)
    (tmp_path / "cannot_be_read.py").write_text("def (")
    (tmp_path / "lazy_one.py").write_text("def __getattr__(name):\n    import no_such_package\n")
    (tmp_path / "re_exports.py").write_text("from makes_networks import make\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(TRUSTED, "")
    yield tmp_path / "makes_networks.imported"
    monkeypatch.delitem(__import__("sys").modules, "makes_networks", raising=False)


def test_nothing_is_imported_without_trust(module, monkeypatch):
    config = FactoryConfig(function="makes_networks:make", channels=4, stride=2)
    monkeypatch.setenv(TRUSTED, "others:make")
    with pytest.raises(MissingPartError, match=f"if you trust it: export {TRUSTED}=others:make,makes_networks:make$"):
        build(config)
    monkeypatch.setenv(TRUSTED, "makes_networks:word,makes_networks")
    with pytest.raises(MissingPartError, match="if you trust it"):
        build(config)
    assert not module.exists()
    monkeypatch.setenv(TRUSTED, "others:make,makes_networks:make")
    network = build(config)
    assert network.features == (FeatureMap(channels=4, stride=2),)
    (logits,) = network(torch.randn(1, 3, 8, 6))
    assert logits.shape == (1, 4, 4, 3)
    assert module.exists()


@pytest.mark.parametrize("name", ["os", "os:", ":x", "os:system('x')", "os:path.join", "../x:y", "a b:c", "os:x\n", ""])
def test_only_names_are_taken(name):
    with pytest.raises(ValueError, match="function"):
        FactoryConfig(function=name, channels=2)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("nowhere_at_all:make", MissingPartError, "No module named .* folder of nowhere_at_all in PYTHONPATH"),
        ("makes_networks:other", MissingPartError, "makes_networks has no 'other'; known: make, word, fails$"),
        ("lazy_one:make", MissingPartError, "No module named 'no_such_package'"),
        ("re_exports:made", MissingPartError, "re_exports has no 'made'; did you mean 'make'"),
        ("makes_networks:mkae", MissingPartError, "makes_networks has no 'mkae'; did you mean 'make'"),
        ("makes_networks:word", ConfigError, "to make a torch.nn.Module, found str"),
        ("makes_networks:fails", ConfigError, "the call without arguments fails: RuntimeError: no such weights$"),
        ("cannot_be_read:make", ConfigError, "its module cannot be imported: SyntaxError"),
    ],
)  # fmt: skip
def test_functions_that_make_no_network(module, function, error, message):
    with pytest.raises(error, match=f"factory {function}: .*{message}"):
        call(function)


def test_logits_in_all_shapes_that_libraries_give():
    logits, other = torch.randn(1, 2, 3, 4), torch.randn(1, 5)
    for found in (logits, {"out": logits, "aux": other}, {"logits": logits}, (logits, other), [logits]):
        assert logits_in(found) is logits
    for found, said in (({"masks": logits}, "a dict of masks"), ((), "tuple"), (other, "Tensor"), ("x", "str")):
        with pytest.raises(ConfigError, match=f"the network gives {said}; expected logits"):
            logits_in(found)


def test_decoder_logits_hands_on_the_one_map():
    level = FeatureMap(channels=4, stride=2)
    decoder = Logits(LogitsConfig(), (level,))
    x = torch.randn(1, 4, 3, 3)
    assert decoder((x,)) is x
    assert decoder.out == level
    with pytest.raises(ConfigError, match=r"decoder logits: expected one level, .* found 2"):
        Logits(LogitsConfig(), (level, level))


def test_weights_of_the_network_stand_under_its_name(module):
    network = FactoryNetwork(call("makes_networks:make"), 4, 2)
    assert list(network.state_dict()) == ["network.weight", "network.bias"]
