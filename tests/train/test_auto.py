import json
import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segdeploy.config import parse_config
from segdeploy.config.trainer import Trainer
from segdeploy.data.table import Tables
from segdeploy.errors import ConfigError
from segdeploy.model.segmenter import from_config
from segdeploy.train import trial as trial_module
from segdeploy.train.auto import largest, learning_rate_for, settle_trainer
from segdeploy.train.distributed import Processes
from segdeploy.train.loop import checked_parts, train
from segdeploy.train.plan import make_plan
from segdeploy.train.trial import StepTrial, peak_memory, reset_peak_memory, resident_memory


@given(fits=st.integers(1, 300), most=st.integers(1, 300))
def test_as_many_as_fit(fits, most):
    """More images are always faster here, so memory and the limit alone decide."""
    asked = []

    def trial(size):
        asked.append(size)
        return 2.0**size if size <= fits else None

    size, why = largest(trial, most)
    best = min(fits, most)
    assert best - max(1, best // 8) <= size <= best
    assert best >= 8 or size == best  # few are found exactly
    assert len(asked) <= 12
    assert ("max_batch_size" if best == most else "the most that fit into memory (") in why
    assert best < most or size == most


def test_no_more_than_make_it_faster():
    speeds = {8: 10.0, 16: 14.0, 32: 14.5, 64: 40.0}
    size, why = largest(speeds.get, 1000)
    assert size == 16
    assert why == "of which 32 are hardly faster (14.5 images/s instead of 14.0)"


def test_nothing_fits():
    with pytest.raises(ConfigError, match="not one image fits"):
        largest(lambda size: None, 100)


@pytest.mark.parametrize(
    ("optimizer", "images", "pretrained", "rate"),
    [
        ("{type: adamw}", 8, False, 1e-3),
        ("{type: adamw}", 32, False, 2e-3),
        ("{type: adam}", 16, True, 2e-4),
        ("{type: adamw}", 4, True, 1e-4),
        ("{type: adamw, encoder_lr_scale: 0.1}", 16, True, 6.3e-4),  # SegFormer's 6e-4, and its 6e-5 for the encoder
        ("{type: adamw, encoder_lr_scale: 0.01}", 16, True, 6.3e-4),
        ("{type: adamw, encoder_lr_scale: 2}", 16, True, 2e-4),
        ("{type: adamw, encoder_lr_scale: 0.1}", 8, False, 1e-3),
        ("{type: sgd, momentum: 0.9, encoder_lr_scale: 0.1}", 16, True, 1e-2),
        ("{type: sgd, momentum: 0.9}", 16, True, 1e-2),
        ("{type: sgd, momentum: 0.9}", 8, True, 5e-3),
        ("{type: sgd, momentum: 0.9}", 16, False, 5e-2),
        ("{type: sgd}", 16, True, 1e-1),
    ],
)
def test_learning_rate(tiny_config, optimizer, images, pretrained, rate):
    text = tiny_config.replace("learning_rate: 5e-3", f"learning_rate: auto, optimizer: {optimizer}")
    found = learning_rate_for(parse_config(text).trainer, images, pretrained=pretrained)
    assert found == pytest.approx(rate, rel=0.02)


def test_learning_rate_of_an_optimiser_without_a_recipe():
    trainer = Trainer()
    other = trainer.model_copy(update={"optimizer": trainer.optimizer.model_copy(update={"type": "lbfgs"})})
    with pytest.raises(ConfigError, match="auto knows adam, adamw, nadam, radam and sgd, not lbfgs; give a number"):
        learning_rate_for(other, 8, pretrained=False)


@pytest.fixture
def stepped(tiny_config, tiny_table):
    """A trial, and the network that it was made of; large enough for its memory to be seen."""
    text = tiny_config.replace("height: 64, width: 96", "height: 256, width: 256")
    config = parse_config(text.replace("batch_size: 4", "batch_size: 4, ema_decay: 0.9"))
    _, report = checked_parts(config, Tables(dataset=tiny_table))
    _, segmenter = from_config(config, report.classes)
    with StepTrial(segmenter, config, report, torch.device("cpu")) as trial:
        yield trial, segmenter


def test_trial_leaves_the_network_and_the_random_numbers(stepped):
    trial, segmenter = stepped
    before = {name: t.clone() for name, t in segmenter.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert trial(4) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in segmenter.state_dict().items())
    assert any(not torch.equal(t, before[name]) for name, t in trial.model.state_dict().items())


@pytest.mark.skipif(not reset_peak_memory(), reason="this system does not tell the peak of a process's memory")
def test_peak_of_memory():
    assert reset_peak_memory()
    start = resident_memory()
    held = np.ones(100 << 20, np.uint8)
    assert held.any()
    del held
    assert peak_memory() - start > 90 << 20


@pytest.mark.skipif(not reset_peak_memory(), reason="this system does not tell the peak of a process's memory")
def test_memory_of_large_steps_is_told_from_small_ones(stepped, monkeypatch):
    trial, _ = stepped
    assert trial._fits_cpu(8)
    few, more = (trial._needs[size] for size in (2, 4))
    assert more > few > 0
    # Room for 48 images more than 4.
    monkeypatch.setattr(trial_module, "free_memory", lambda: int((more + 24 * (more - few)) / 0.5) + 2)
    assert trial._fits_cpu(52)
    assert not trial._fits_cpu(53)
    monkeypatch.setattr(trial_module, "free_memory", lambda: 0)
    assert trial(512) is None


def test_choices_become_numbers_of_the_run(tiny_config, tiny_table, tmp_path, caplog):
    text = tiny_config.replace(
        "epochs: 8, batch_size: 4, learning_rate: 5e-3", "epochs: 1, batch_size: auto, learning_rate: auto"
    )
    with caplog.at_level(logging.INFO, logger="segdeploy"):
        run = train(parse_config(text), Tables(dataset=tiny_table), tmp_path, device="cpu").run
    trainer = json.loads((run / "model" / "model_hyperparameters.json").read_text())["trainer"]
    # 14 training images, of which one in five may go into a step.
    assert trainer["batch_size"] == 2
    assert trainer["learning_rate"] == 5e-4
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert f"device: cpu, {torch.get_num_threads()} threads, " in said
    assert "batch size: 2 images per step, the most that" in said
    assert "learning rate: 0.0005 at most, for adamw, 2 images per step, random weights" in said


@pytest.mark.parametrize(
    ("steps", "size"),
    [
        ("effective_batch_size: 4, gradient_accumulation_steps: 2", 2),
        ("effective_batch_size: 1", 1),
        ("gradient_accumulation_steps: 7", 2),
        ("gradient_accumulation_steps: 14", 1),
    ],
)
def test_batch_size_fits_the_step_that_it_is_part_of(tiny_config, tiny_table, steps, size):
    text = tiny_config.replace("batch_size: 4", f"batch_size: auto, {steps}")
    config = parse_config(text)
    _, report = checked_parts(config, Tables(dataset=tiny_table))
    _, segmenter = from_config(config, report.classes)
    settled = settle_trainer(config, segmenter, report, 14, Processes(torch.device("cpu")), pretrained=False)
    assert settled.trainer.batch_size == size
    make_plan(14, 1, settled.trainer)


def test_rate_below_the_end_of_the_cosine(tiny_config, tiny_table, tmp_path):
    rate = "learning_rate: auto, learning_rate_scheduler: {eta_min: 0.1}"
    text = tiny_config.replace("learning_rate: 5e-3", rate)
    with pytest.raises(ConfigError, match=r"scheduler ends at 0.1, above the learning rate 0\.00071 that auto chooses"):
        train(parse_config(text), Tables(dataset=tiny_table), tmp_path, device="cpu")
    assert not any(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_out_of_memory_is_no_end(tiny_config, tiny_table):
    config = parse_config(tiny_config)
    _, report = checked_parts(config, Tables(dataset=tiny_table))
    _, segmenter = from_config(config, report.classes)
    with StepTrial(segmenter, config, report, torch.device("cuda")) as trial:
        assert trial(4) > 0
        assert trial(1 << 22) is None
        assert trial(4) > 0
