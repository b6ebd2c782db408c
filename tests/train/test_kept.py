"""Which weights are shipped, and that their scores are those of `segdeploy evaluate`."""

import signal

import pytest
import torch

from segdeploy.bundle import open_model
from segdeploy.config.load import read_run_config
from segdeploy.data.table import read_table
from segdeploy.evaluate import evaluate
from segdeploy.model.segmenter import from_config
from segdeploy.run_folder import find_model
from segdeploy.runtime.runner import open_runner
from segdeploy.train.distributed import Processes
from segdeploy.train.ema import build_ema
from segdeploy.train.ends import AskedError
from segdeploy.train.kept import Kept
from segdeploy.train.losses.cross_entropy import CrossEntropy
from segdeploy.train.signals import StopRequest


@pytest.fixture
def samples(tiny_table):
    return read_table(tiny_table)[:6]


@pytest.fixture
def make(tiny_run, samples):
    """Makes one around the tiny run's network with new weights, and an average where there is a decay."""
    config, spec = read_run_config(tiny_run), open_model(tiny_run).spec

    def make(decay=None):
        model = from_config(config, spec.classes, pretrained=False)[1]
        ema = build_ema(model, decay) if decay else None
        parts = {"validation": samples, "test": []}
        alone = Processes(torch.device("cpu"))
        return model, ema, Kept(model, ema, None, config, spec, CrossEntropy(None, 0.0), parts, alone, StopRequest())

    return make


def test_average_is_kept_where_there_is_one(make):
    model, _, kept = make()
    assert kept.module is model
    model, ema, kept = make(decay=0.9)
    assert kept.module is ema.module


def test_what_is_saved_is_loaded(make, tmp_path):
    _, ema, kept = make(decay=0.5)
    for p in ema.module.parameters():
        torch.nn.init.normal_(p)
    kept.save(tmp_path, 3, 0.25)
    model, _, other = make()
    other.load(tmp_path)
    own = ema.module.state_dict()
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())


def test_scores_are_those_of_evaluate(make, tiny_run, samples):
    _, _, kept = make()
    kept.load(find_model(tiny_run))
    found = kept.score("validation", boundary=True)
    with open_runner(open_model(tiny_run), "torch") as runner:
        expected = evaluate(runner, samples, open_model(tiny_run).spec)
    assert found.scores.confusion.tolist() == expected.scores.confusion.tolist()
    assert found.loss is not None


def test_signal_ends_the_scoring(make):
    _, _, kept = make()
    kept.stop.signal = signal.SIGTERM
    with pytest.raises(AskedError):
        kept.score("validation", boundary=False)
