import logging

import pytest

from segdeploy.config import parse_config
from segdeploy.config.scheduler import KEYS_OF, Scheduler
from segdeploy.errors import ConfigError

BASE = """\
input_features: [{name: image, type: image, encoder: unet}]
output_features: [{name: mask, type: image, preprocessing: {num_classes: 2}, decoder: unet}]
trainer: {learning_rate: 0.01, learning_rate_scheduler: %s}
"""


def schedule(text):
    return parse_config(BASE % text).trainer.learning_rate_scheduler


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", {"decay": "cosine"}),
        ("{decay: null, reduce_on_plateau: 3}", {"decay": None, "reduce_on_plateau": 3}),
        ("{type: linear}", {"decay": "linear"}),
        ("{decay: polynomial, polynomial_power: 0.9}", {"decay": "polynomial", "polynomial_power": 0.9}),
        ("{decay: exponential, decay_rate: 0.5, staircase: true}", {"decay_rate": 0.5, "staircase": True}),
        ("{decay: one_cycle, max_lr: 0.5, pct_start: 0.1}", {"max_lr": 0.5, "pct_start": 0.1}),
        ("{decay: inverse_sqrt, inverse_sqrt_warmup_steps: 9}", {"inverse_sqrt_warmup_steps": 9}),
        ("{decay: wsd, wsd_stable_fraction: 0.6, wsd_decay_fraction: 0.3}", {"wsd_stable_fraction": 0.6}),
    ],
)
def test_keys_of_each(text, expected, caplog):
    caplog.set_level(logging.INFO, logger="segdeploy")
    found = schedule(text)
    assert {key: getattr(found, key) for key in expected} == expected
    assert schedule(found.model_dump_json()) == found  # and says nothing about the keys of the others
    assert caplog.records == []


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        ("{decay: cosine, decay_rate: 0.8, pct_start: 0.3}", "decay_rate"),
        ("{decay: null, eta_min: 0.5}", "eta_min"),
        ("{decay: one_cycle, warmup_fraction: 0.2, t_mult: 1}", "warmup_fraction"),
        ("{reduce_on_plateau_patience: 3, reduce_eval_split: validation}", "reduce_on_plateau_patience, reduce_eval_s"),
    ],
)
def test_keys_of_another_schedule_are_named_in_a_note(text, dropped, caplog):
    """As Ludwig does: one section holds them all."""
    caplog.set_level(logging.INFO, logger="segdeploy")
    assert schedule(text)
    (record,) = caplog.records
    place = "trainer.learning_rate_scheduler."
    assert record.message.replace(place, "").startswith(f"config: without effect in segdeploy: {dropped}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{decay: cosin}", "_scheduler.decay: expected 'cosine', 'linear', "),
        ("{decay: wsd, wsd_stable_fraction: 0.9}", "_scheduler: the three wsd fractions add up to 1.1, expected 1"),
        ("{decay: polynomial, polynomial_end_lr: 1}", "trainer: learning_rate_scheduler.polynomial_end_lr 1 is above"),
        ("{reduce_on_plateau: 1, reduce_eval_metric: mean_iou}", "_scheduler: training has no mean_iou; set reduce_ev"),
        ("{reduce_on_plateau: 1, reduce_on_plateau_rate: 1}", "_rate: expected less than 1, got 1"),
        ("{decay: exponential, decay_rate: 0}", "decay_rate: expected greater than 0, got 0"),
        ("{warmup_evaluations: 2}", "warmup_evaluations: 2 has no counterpart in segdeploy: use warmup_fraction"),
    ],
)
def test_mistakes(text, said):
    with pytest.raises(ConfigError) as caught:
        parse_config(BASE % text, "c.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_key_belongs_to_one_schedule_or_to_all():
    own = [key for keys in KEYS_OF.values() for key in keys]
    assert len(own) == len(set(own))
    shared = {"decay", "warmup_fraction"} | {key for key in Scheduler.model_fields if key.startswith("reduce_")}
    assert set(own) | shared == set(Scheduler.model_fields)
