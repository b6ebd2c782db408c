"""Two real processes on this machine, joined by gloo, against one."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from segdeploy.config import parse_config
from segdeploy.data.table import Tables, read_table
from segdeploy.run_folder import LATEST_FILE, WEIGHTS_FILE
from segdeploy.train.loop import train


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Masks of which every other one is ignored for the greater part: halves of a batch weigh differently."""
    from segdeploy.data.demo import generate

    table = generate(tmp_path_factory.mktemp("data"), count=20, size=(32, 48))
    for sample in read_table(table)[::2]:
        mask = Image.open(sample.mask)
        mask.paste(255, (0, 0, 40, 32))
        mask.save(sample.mask)
    return table


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_what_one_trains(together, arguments, plain_config, table, tmp_path):
    """Float32 sums in another order: weights differ by less than 1e-5 of the largest, losses by 1e-5."""
    codes, (said, other) = together(*arguments(plain_config))
    assert codes == [0, 0], (said, other)
    assert "each step takes 4 samples: processes x batches x samples = 2 x 1 x 2" in said
    assert other == ""
    alone = train(parse_config(plain_config), Tables(dataset=table), tmp_path / "alone", device="cpu")
    run = tmp_path / "experiment_run"
    for name in (LATEST_FILE, WEIGHTS_FILE):
        ours, theirs = (load_file(r / "model" / name) for r in (run, alone.run))
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert torch.allclose(ours[key].float(), value.float(), rtol=0, atol=1e-5 * float(value.abs().max())), key
    first, second = alone.history, rows(run)
    assert [r["step"] for r in second] == [3, 6]
    for key in ("training_loss", "validation_loss", "validation_mean_iou", "validation_pixel_accuracy"):
        assert [r[key] for r in second] == pytest.approx([r[key] for r in first], rel=1e-5), key
    scores = [json.loads((r / "training_statistics.json").read_text())["test"]["mask"] for r in (run, alone.run)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5, nan_ok=True)
    assert not list(tmp_path.glob("experiment_run_*"))


def test_signal_to_one_stops_both_after_the_same_step(together, arguments, taught_config, dies, tmp_path):
    """Batch norm and dropout too: each process has its own random numbers, and goes on with them."""
    words = arguments(taught_config, "--name", "whole")
    codes, said = together(*words)
    assert codes == [0, 0], said
    codes, said = together(*words[:-1], "run", before=("", dies("SIGTERM")))
    assert codes == [143, 143], said
    line = said[0].splitlines()[-1]
    run = tmp_path / "run"
    assert line == (
        f"segdeploy: stopped by SIGTERM in epoch 2 of 3, after step 1 of 3; go on with: segdeploy train --resume {run}"
    )
    assert said[1] == ""
    codes, said = together("train", "--resume", run, "--device", "cpu")
    assert codes == [0, 0], said
    for name in (LATEST_FILE, WEIGHTS_FILE):
        assert (run / "model" / name).read_bytes() == (tmp_path / "whole" / "model" / name).read_bytes()


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_lost_process_ends_the_other_with_one_line(how, together, arguments, plain_config, dies):
    """One that has died is seen at once, one that hangs after distributed_timeout."""
    words = arguments(plain_config, "--set", "trainer.distributed_timeout=3")
    codes, said = together(*words, before=("", dies(how)), seconds=20, linger=1)
    assert codes[0] == 2, said
    assert codes[1] != 0
    (line,) = [line for line in said[0].splitlines() if line.startswith("segdeploy: ")]
    assert line.startswith("segdeploy: process 0 of 2 has lost another one, or waited 3 s for it")
    assert "go on with --resume" in line
    assert "Traceback" not in said[0]


def test_a_long_look_at_the_data_is_waited_for(together, arguments, plain_config):
    """That of a large data set, the first time, takes longer than any step."""
    slow = """
import time
from segdeploy.train import loop
check = loop.checked_parts
def checked_parts(*values):
    time.sleep(9)
    return check(*values)
loop.checked_parts = checked_parts
"""
    words = arguments(plain_config, "--set", "trainer.distributed_timeout=6", "--set", "trainer.epochs=1")
    codes, said = together(*words, before=(slow, ""))
    assert codes == [0, 0], said


def test_mistake_is_said_once(together, arguments, plain_config, tmp_path):
    codes, said = together(*arguments(plain_config, "--set", "trainer.sync_batchnorm=true"))
    assert codes == [2, 2], said
    assert "torch has it on CUDA alone" in said[0]
    assert said[1] == ""
    codes, said = together(*arguments(plain_config, "--set", "loss.0.class_weights=[0, 0, 0, 0, 0, 0, 0]"))
    assert codes == [2, 2], said
    assert "nothing to learn" in said[0]
    assert said[1] == ""
    assert not (tmp_path / "experiment_run").exists()
