"""`pytest --segdeploy-plugin` as an author runs it: in another process, on a made-up distribution."""

import os
import subprocess
import sys

import pytest

CODE = """
from torch import nn
from segdeploy.plugin import DecoderPlugin, FeatureMap, Section, hookimpl

class Mine(nn.Conv2d):
    def __init__(self, config, features):
        super().__init__(features[0].channels, 16, 3, padding=1)
        self.out = FeatureMap(channels=17, stride=features[0].stride)

    def forward(self, maps):
        return super().forward(maps[0]).relu()

@hookimpl
def segdeploy_register_decoders(register):
    register(DecoderPlugin(name="mine", summary="mine", config=Section, build=Mine))
"""


@pytest.fixture
def run(install, tmp_path):
    install("author", "decoder.mine", CODE)

    def run(*words):
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
            cwd=folder, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_one_test_for_each_rule_without_any_test_file(run):
    done = run("-q", "-rfs", "--segdeploy-plugin", "mine", "-k", "build or output or labels")
    assert done.returncode == 1, done.stdout
    assert "1 failed, 2 passed, 2 skipped" in done.stdout
    assert "FAILED segdeploy::decoder-mine::output" in done.stdout
    assert "out at 96x64: 17 channels are declared, found (2, 16, 32, 48)" in done.stdout
    assert "fix:  Declare in out the real channels and stride." in done.stdout
    assert "not judged: output failed" in done.stdout
    assert "Traceback" not in done.stdout


def test_alone_a_rule_that_cannot_be_judged_fails_and_groups_go_to_one_worker(run):
    done = run("-q", "--segdeploy-plugin", "author", "-k", "labels", "-n", "2", "--dist", "loadgroup")
    assert done.returncode == 1, done.stdout
    assert "segdeploy::decoder-mine::labels@segdeploy::decoder-mine" in done.stdout
    assert "not judged: output failed" in done.stdout


def test_bad_input_is_one_line(run):
    done = run("-q", "--segdeploy-plugin", "mien")
    assert done.returncode == 4
    assert done.stderr.strip() == (
        "ERROR: no encoder, decoder, backend or distribution is named 'mien'; did you mean 'mine'?"
    )
    done = run("-q", "--segdeploy-plugin", "mine", "--segdeploy-set", "width=3", "-k", "build-reads")
    assert "decoder mine: has no key 'width'" in done.stdout
    assert "Traceback" not in done.stdout


def test_distributions_part_that_needs_keys_is_skipped_and_named_it_fails(run, install):
    needs = CODE.replace('"mine"', '"needs"').replace("config=Section", "config=Needs")
    install("needy", "decoder.needs", needs + "class Needs(Section):\n    width: int\n")
    for name, code, said in (("needy", 0, "1 skipped"), ("needs", 1, "1 failed")):
        done = run("-q", "-rs", "--segdeploy-plugin", name, "-k", "config-defaults")
        assert (done.returncode, said in done.stdout) == (code, True), done.stdout
        assert "decoder needs: give its keys width with --set" in done.stdout


def test_costs_nothing_where_it_is_not_asked_for(run, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "test_mine.py").write_text(
        "import sys\n\ndef test():\n    assert not {'torch', 'pydantic', 'numpy', 'onnx'} & set(sys.modules)\n"
    )
    assert run("-q").returncode == 0
    assert run("-q", "-p", "no:segdeploy").returncode == 0
