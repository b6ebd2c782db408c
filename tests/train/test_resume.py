"""Runs that are killed, stopped, or find the disk full go on to the very bytes of one that was left alone."""

import json
import random
import re
import signal

import pytest

from segdeploy.config import parse_config
from segdeploy.data.table import Tables
from segdeploy.errors import ConfigError, ModelError
from segdeploy.run_folder import CONFIG_FILE, LATEST_FILE, PROGRESS_FILE, WEIGHTS_FILE, Skip
from segdeploy.train.loop import resume, train

STEPS = 3
"""Of an epoch: 14 samples, 4 at a time."""

# After the weights have moved, before anything of that is on disk.
AT_STEP = """
import os
from segdeploy.train.step import Step
update, left = Step._update, [{left}]
def counted(self):
    update(self)
    if not left[0]:
        os.kill(os.getpid(), {signal})
    left[0] -= 1
Step._update = counted
"""

# With half of the file written.
AT_WRITE = """
import os
from segdeploy import checkpoint
write, left = checkpoint.save_file, [{left}]
def half(tensors, path, metadata):
    write(tensors, path, metadata=metadata)
    if not left[0]:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), {signal})
    left[0] -= 1
checkpoint.save_file = half
"""

IN_VALIDATION = """
import os
from segdeploy.train import kept
score = kept.evaluate_with_loss
def late(*values, **named):
    os.kill(os.getpid(), {signal})
    return score(*values, **named)
kept.evaluate_with_loss = late
"""


@pytest.fixture(scope="module")
def config(taught_config, tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "config.yaml"
    file.write_text(taught_config)
    return file


@pytest.fixture(scope="module")
def alone(taught_config, small_table, tmp_path_factory):
    """The run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    return train(parse_config(taught_config), Tables(dataset=small_table), folder, device="cpu").run


@pytest.fixture
def begin(run, config, small_table, tmp_path):
    """A function that starts a run which comes to grief: its folder, exit code and what it said."""

    def start(before, *words):
        words = ["train", "-c", config, "--dataset", small_table, "-o", tmp_path, "--device", "cpu", *words]
        code, said = run(*words, before=before)
        return tmp_path / "experiment_run", code, said

    return start


def go_on(run, folder, before=""):
    return run("train", "--resume", folder, "--device", "cpu", before=before)


def rows(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if "second" not in key} for row in found]


def assert_equal(folder, other):
    for name in (WEIGHTS_FILE, LATEST_FILE):
        assert (folder / "model" / name).read_bytes() == (other / "model" / name).read_bytes(), name
    assert rows(folder) == rows(other)
    statistics = [json.loads((f / "training_statistics.json").read_text()) for f in (folder, other)]
    assert statistics[0]["test"]["mask"]["mean_iou"] == statistics[1]["test"]["mask"]["mean_iou"]
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_any_step_and_while_it_writes(seed, begin, run, alone):
    draw = random.Random(seed)
    kill = int(signal.SIGKILL)
    folder, code, _ = begin(AT_STEP.format(left=draw.randrange(1, 2 * STEPS), signal=kill))
    assert code == -kill
    for template in (AT_WRITE, AT_STEP, AT_WRITE):
        code, said = go_on(run, folder, template.format(left=draw.randrange(3), signal=kill))
        assert code in (-kill, 0), said  # a run that was nearly done may be done
    for part in folder.rglob("*.part"):
        part.unlink()  # what a killed write leaves has a name of its own, which nothing reads
    code, said = go_on(run, folder)
    assert code == 0, said
    assert_equal(folder, alone)


@pytest.mark.parametrize(
    ("before", "number", "where"),
    [
        (AT_STEP.format(left=4, signal=15), signal.SIGTERM, "in epoch 2 of 3, after step 2 of 3"),
        (AT_STEP.format(left=1, signal=2), signal.SIGINT, "in epoch 1 of 3, after step 2 of 3"),
        (IN_VALIDATION.format(signal=15), signal.SIGTERM, "in epoch 1 of 3, after step 3 of 3"),
    ],
    ids=["SIGTERM", "SIGINT", "in validation"],
)
def test_signal_saves_and_says_how_to_go_on(before, number, where, begin, run, alone):
    folder, code, said = begin(before, "--set", "trainer.steps_per_checkpoint=0")
    assert code == 128 + number
    last = said.splitlines()[-1]
    assert last == f"segdeploy: stopped by {number.name} {where}; go on with: segdeploy train --resume {folder}"
    assert "Traceback" not in said
    progress = json.loads((folder / "model" / PROGRESS_FILE).read_text())
    epoch, step = re.search(r"epoch (\d) of 3, after step (\d)", where).groups()
    assert (progress["epoch"] + 1, progress["batches"]) == (int(epoch), int(step))
    code, said = go_on(run, folder)
    assert code == 0, said
    assert_equal(folder, alone)


def test_signal_while_the_test_part_is_scored_leaves_the_last_state(begin, run, alone):
    """The best weights stand in the model then, which are not those of the last step."""
    third = IN_VALIDATION.replace(
        "    os.kill", "    late.calls = getattr(late, 'calls', 0) + 1\n    late.calls == 4 and os.kill"
    )
    folder, code, said = begin(third.format(signal=15))
    assert code == 143, said
    assert "after epoch 3 of 3" in said
    assert (folder / "model" / LATEST_FILE).read_bytes() == (alone / "model" / LATEST_FILE).read_bytes()
    code, said = go_on(run, folder)
    assert code == 0, said
    assert_equal(folder, alone)


def test_run_of_an_earlier_version_gets_its_page_and_card(taught_config, small_table, tmp_path, caplog):
    """Such a run has no scores of its best weights, and optimiser keys that are written out."""
    run = train(parse_config(taught_config), Tables(dataset=small_table), tmp_path, device="cpu").run
    known = json.loads((run / "best_epoch.json").read_text())
    for name in ("best_epoch.json", "best_examples.json", "model_card.md", "training.html"):
        (run / name).unlink()
    resume(run, device="cpu")
    found = json.loads((run / "best_epoch.json").read_text())
    assert found["epoch"] == known["epoch"]
    assert found["validation"]["mean_iou"] == pytest.approx(known["validation"]["mean_iou"])
    assert found["test"] == known["test"]
    assert (run / "model_card.md").exists()
    assert (run / "training.html").exists()


def test_finished_run_without_statistics_is_resumed(taught_config, small_table, tmp_path):
    kept_none = Skip(statistics=True)
    run = train(parse_config(taught_config), Tables(dataset=small_table), tmp_path, device="cpu", skip=kept_none).run
    assert resume(run, device="cpu").test_mean_iou is not None


def test_full_disk_leaves_the_last_checkpoint(begin, run, alone):
    folder, code, _ = begin(AT_STEP.format(left=4, signal=15))
    assert code == 143
    before = (folder / "model" / LATEST_FILE).read_bytes()
    full = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2},) * 2)"
    code, said = go_on(run, folder, full)
    assert code == 2
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("segdeploy: ")]
    assert "cannot be written" in line
    assert "the checkpoint before it is whole; make room, and go on with --resume" in line
    assert (folder / "model" / LATEST_FILE).read_bytes() == before
    assert not list(folder.rglob("*.part"))
    code, said = go_on(run, folder)
    assert code == 0, said
    assert_equal(folder, alone)


def test_state_within_an_epoch_goes_on_with_the_same_steps_alone(begin, tmp_path):
    folder, _, _ = begin(AT_STEP.format(left=1, signal=15))
    file = folder / "model" / CONFIG_FILE
    content = json.loads(file.read_text())
    content["trainer"]["batch_size"] = 1
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"by 1 processes with 2 batches of 2 samples each; found 1 with 4 of 1;"):
        resume(folder, device="cpu")


def test_checkpoints_come_as_often_as_they_are_asked_for(taught_config, small_table, tmp_path, monkeypatch):
    from segdeploy.train import state

    saved, save = [], state.save_training_state

    def note(path, held, progress, more):
        saved.append((progress["epoch"], progress["batches"]))
        save(path, held, progress, more)

    monkeypatch.setattr(state, "save_training_state", note)
    words = ["trainer.steps_per_checkpoint=0", "trainer.checkpoints_per_epoch=2", "trainer.epochs=1"]
    config = parse_config(taught_config, overrides=[*words, "trainer.effective_batch_size=2"])
    train(config, Tables(dataset=small_table), tmp_path, device="cpu")
    assert saved == [(0, 0), (0, 4), (1, 0)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.checkpoints_per_epoch=2"], "give checkpoints_per_epoch or steps_per_checkpoint, not both"),
        (
            ["trainer.gradient_accumulation_steps=3"],
            "effective_batch_size 4 is no multiple of batch_size 2 x gradient_accumulation_steps 3",
        ),
    ],
)
def test_keys_that_contradict_each_other(words, said, taught_config):
    with pytest.raises(ConfigError, match=said):
        parse_config(taught_config, overrides=words)
