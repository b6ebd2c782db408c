"""A network that two real processes share out, joined by gloo, against one process that has it all."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from segdeploy.config import parse_config
from segdeploy.data.table import Tables
from segdeploy.run_folder import CONFIG_FILE, LATEST_FILE, WEIGHTS_FILE
from segdeploy.train import sharding
from segdeploy.train.loop import resume, train
from segdeploy.train.optim import OF_TORCH

# Two batches a step for each process.
SHARED = [
    "trainer.sharding=true",
    "trainer.batch_size=1",
    "trainer.learning_rate=3e-3",
    "trainer.optimizer={type: adamw}",
    "trainer.gradient_clipping={clipglobalnorm: 0.5, clipnorm: 0.2, clipvalue: 0.1}",
    "trainer.loss_at=decoder",
]
BLOCKS = """
from segdeploy.train import sharding
sharding.SMALLEST = 500
"""
COUNTS = """
from segdeploy.train.epochs import Training
go = Training.go
def counted(self, on_epoch):
    tensors = [*self.model.parameters(), *self.ema.module.parameters()]
    from torch.distributed.fsdp import FSDPModule
    blocks = sum(isinstance(m, FSDPModule) for m in self.step.learner.modules())
    print("HELD", sum(t.to_local().numel() for t in tensors), sum(t.numel() for t in tensors), blocks, flush=True)
    return go(self, on_epoch)
Training.go = counted
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    from segdeploy.data.demo import generate

    return generate(tmp_path_factory.mktemp("data"), count=20, size=(32, 48))


@pytest.fixture
def words(arguments, plain_config):
    def make(*more, options=()):
        return arguments(plain_config, *(word for key in (*SHARED, *options) for word in ("--set", key)), *more)

    return make


def expect_same(run, other):
    """Float32 sums in another order, divided by their like in AdamW: less than 1e-4 of a weight's largest value."""
    for name in (LATEST_FILE, WEIGHTS_FILE):
        ours, theirs = (load_file(r / "model" / name) for r in (run, other))
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert ours[key].shape == value.shape, key
            assert torch.allclose(ours[key].float(), value.float(), rtol=0, atol=1e-4 * float(value.abs().max())), key


def test_two_halves_train_what_one_whole_trains_and_go_on_alike(together, words, plain_config, dies, table, tmp_path):
    codes, said = together(*words(), before=(BLOCKS + COUNTS, BLOCKS + COUNTS))
    assert codes == [0, 0], said
    for text in said:
        held, whole, blocks = map(int, next(x for x in text.splitlines() if x.startswith("HELD")).split()[1:])
        assert 0.4 * whole < held < 0.6 * whole
        assert blocks > 3
    alone = train(parse_config(plain_config, overrides=SHARED), Tables(dataset=table), tmp_path / "alone", device="cpu")
    run = tmp_path / "experiment_run"
    expect_same(run, alone.run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for key in ("training_loss", "validation_loss", "validation_mean_iou"):
        assert [r[key] for r in rows] == pytest.approx([r[key] for r in alone.history], rel=1e-4), key
    scores = [json.loads((r / "training_statistics.json").read_text())["test"]["mask"] for r in (run, alone.run)]
    assert scores[0]["mean_iou"] == pytest.approx(scores[1]["mean_iou"], rel=1e-4)

    # Stopped within an epoch, the halves go on to the same bits.
    codes, said = together(*words("--name", "stopped"), before=(BLOCKS, BLOCKS + dies("SIGTERM", left=3)))
    assert codes == [143, 143], said
    assert "in epoch 2 of 2, after step 2 of 3" in said[0]
    codes, said = together("train", "--resume", tmp_path / "stopped", "--device", "cpu", before=(BLOCKS, BLOCKS))
    assert codes == [0, 0], said
    for name in (LATEST_FILE, WEIGHTS_FILE):
        assert (run / "model" / name).read_bytes() == (tmp_path / "stopped" / "model" / name).read_bytes()


def test_checkpoint_of_halves_serves_one_process(together, words, tmp_path):
    codes, said = together(*words(options=["trainer.epochs=1"]), before=(BLOCKS, BLOCKS))
    assert codes == [0, 0], said
    run = tmp_path / "experiment_run"
    config = run / "model" / CONFIG_FILE
    content = json.loads(config.read_text())
    content["trainer"]["epochs"] = 2
    config.write_text(json.dumps(content))
    assert len(resume(run, device="cpu").history) == 2


@pytest.mark.parametrize("rule", [rule for rule in OF_TORCH if rule != "adamw"])
def test_rules_of_torch_take_parts_of_weights(rule, together, words):
    options = [f"trainer.optimizer={{type: {rule}}}", "trainer.epochs=1", "trainer.ema_decay=null"]
    codes, said = together(*words(options=options), before=(BLOCKS, BLOCKS))
    assert codes == [0, 0], said


def test_divergence_leaves_whole_weights(together, words, tmp_path):
    codes, said = together(*words(options=["trainer.learning_rate=1e30"]), before=(BLOCKS, BLOCKS))
    assert codes == [2, 2], said
    assert "the training loss of epoch" in said[0]
    saved = load_file(tmp_path / "experiment_run" / "diverged" / "batch.safetensors")
    assert saved["model.encoder.stages.0.0.0.weight"].shape == (8, 3, 3, 3)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        (
            "trainer.optimizer.type=lamb",
            "each process has a part of a weight, and optimizer lamb may need all of it; choose one of adamw, ",
        ),
        (
            "trainer.use_mixed_precision=true",
            "FP16 scales its loss for the whole network; set use_mixed_precision: bf16",
        ),
        ("trainer.batch_size=auto", "batch_size auto would try the whole network on one device; give a number"),
        ("trainer.compile=true", "does not go together with trainer.compile"),
    ],
)
def test_what_does_not_go_together_is_said_once(word, line, together, words, tmp_path):
    codes, said = together(*words(options=[word]))
    assert codes == [2, 2], said
    assert f"segdeploy: trainer.sharding: {line}" in said[0]
    assert said[1] == ""
    assert not (tmp_path / "experiment_run").exists()


def test_blocks_are_the_large_ones_of_a_row(monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST", 100)
    large, small = (lambda: nn.Linear(10, 10)), (lambda: nn.Linear(3, 3))
    network = nn.ModuleDict(
        {
            "stem": large(),
            "row": nn.ModuleList([large(), small(), nn.Sequential(large(), nn.ReLU())]),
            "stages": nn.Sequential(nn.Sequential(small(), small()), nn.ModuleList([large()])),
        }
    )
    names = {module: name for name, module in network.named_modules()}
    assert [names[m] for m in sharding._blocks(network)] == ["row.0", "row.2.0", "stages.1.0"]
