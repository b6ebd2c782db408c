import itertools

import pytest

from segdeploy.config.trainer import Trainer
from segdeploy.errors import ConfigError
from segdeploy.train.plan import make_plan


@pytest.mark.parametrize(
    ("samples", "processes", "keys", "expected"),
    [
        (14, 1, {"batch_size": 4}, (3, 4, 1)),
        (3, 1, {"batch_size": 4}, (1, 3, 1)),
        (14, 1, {"batch_size": 2, "gradient_accumulation_steps": 3}, (2, 6, 3)),
        (14, 2, {"batch_size": 2, "gradient_accumulation_steps": 3}, (1, 6, 3)),
        (14, 1, {"batch_size": 4, "effective_batch_size": 10}, (1, 10, 3)),
        (14, 2, {"batch_size": 4, "effective_batch_size": 10}, (1, 5, 2)),
        (14, 2, {"batch_size": 8, "effective_batch_size": 4}, (3, 2, 1)),
        (5, 2, {"batch_size": 4}, (1, 2, 1)),
    ],
)
def test_steps_share_and_batches(samples, processes, keys, expected):
    plan = make_plan(samples, processes, Trainer(**keys))
    assert (plan.steps, plan.share, plan.batches) == expected
    parts = [plan.parts(range(samples), rank) for rank in range(processes)]
    used = list(itertools.chain.from_iterable(b for step in zip(*parts, strict=True) for share in step for b in share))
    assert used == list(range(plan.steps * plan.effective_batch_size))
    sizes = {len(batch) for share in parts for step in share for batch in step}
    assert max(sizes) <= keys["batch_size"]
    assert max(sizes) - min(sizes) <= 1


def test_two_processes_cut_a_step_as_one_with_twice_the_batches():
    keys = Trainer(batch_size=2, effective_batch_size=8)
    one, two = make_plan(17, 1, keys), make_plan(17, 2, keys)
    order = list(range(100, 117))
    both = [first + second for first, second in zip(two.parts(order, 0), two.parts(order, 1), strict=True)]
    assert one.parts(order, 0) == both


@pytest.mark.parametrize(
    ("samples", "processes", "keys", "said"),
    [
        (2, 3, {}, "2 training samples are too few for 3 processes"),
        (20, 2, {"effective_batch_size": 9}, "effective_batch_size 9 is no multiple of the 2 processes"),
        (
            20,
            2,
            {"batch_size": 2, "gradient_accumulation_steps": 1, "effective_batch_size": 8},
            "effective_batch_size 8 is not batch_size 2 x gradient_accumulation_steps 1 x 2 processes",
        ),
    ],
)
def test_sizes_that_do_not_fit(samples, processes, keys, said):
    with pytest.raises(ConfigError, match=said):
        make_plan(samples, processes, Trainer(**keys))
