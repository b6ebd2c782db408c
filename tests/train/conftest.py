"""Real processes that train, forked from one that has imported torch already, so that each starts in a moment."""

import multiprocessing
import os
import socket
import sys

import pytest

CODE = """
import os, sys
os.environ.update(environment)
log = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1), os.dup2(log, 2)
exec(before)
from segdeploy.cli import main
main(words)
"""

TAUGHT = """
input_features:
  - name: image
    type: image
    preprocessing: {height: 32, width: 48}
    augmentation: [{type: random_horizontal_flip}, {type: random_scale, min: 0.8, max: 1.2}, {type: random_color}]
    encoder: {type: unet, base_channels: 4, num_stages: 3}
output_features:
  - name: mask
    type: image
    preprocessing: {classes: [background, disc, box, gear, wrench, sponge, cable]}
    decoder: {type: segformer, hidden_size: 8, dropout: 0.3}
trainer:
  {epochs: 3, batch_size: 2, effective_batch_size: 4, learning_rate: 2e-3, ema_decay: 0.9, steps_per_checkpoint: 1}
"""


# Without norms, whose statistics each process takes of its own batches.
PLAIN = """
input_features:
  - name: image
    type: image
    preprocessing: {height: 32, width: 48}
    augmentation: [{type: random_horizontal_flip}, {type: random_scale, min: 0.8, max: 1.2}]
    encoder: {type: unet, base_channels: 8, num_stages: 2, conv_norm: null}
output_features:
  - name: mask
    type: image
    preprocessing: {classes: [background, disc, box, gear, wrench, sponge, cable]}
    decoder: {type: unet, conv_norm: null, channels: [16, 8]}
    loss: [{type: softmax_cross_entropy, class_weights: [1, 2, 1, 3, 1, 1, 2], label_smoothing: 0.1}, {type: dice}]
trainer:
  epochs: 2
  batch_size: 2
  effective_batch_size: 4
  learning_rate: 0.05
  optimizer: {type: sgd, momentum: 0.9}
  ema_decay: 0.9
"""

DIES = """
import os, signal
from segdeploy.train.step import Step
take, left = Step.__call__, [{left}]
def counted(self, *values, **named):
    if not left[0]:
        os.kill(os.getpid(), signal.{signal})
    left[0] -= 1
    return take(self, *values, **named)
Step.__call__ = counted
"""


@pytest.fixture(scope="session")
def taught_config() -> str:
    """The YAML of a network with dropout and batch norm, trained with all that has a state."""
    return TAUGHT


@pytest.fixture(scope="session")
def small_table(tmp_path_factory):
    """20 generated pictures of 32 x 48, 14 of them to train on."""
    from segdeploy.data.demo import generate

    return generate(tmp_path_factory.mktemp("small"), count=20, size=(32, 48))


WARM = """
import torch.utils.tensorboard, segdeploy.cli.train, segdeploy.train.loop
from segdeploy.plugin.registry import catalogue
catalogue("encoder"), catalogue("decoder")
"""


@pytest.fixture(scope="session")
def _server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm")
    (folder / "warm_trainer.py").write_text(WARM)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm_trainer"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))  # the server knows no other way
        first = context.Process(target=exec, args=("",))
        first.start()
        first.join()
    return context


@pytest.fixture
def segdeploy(_server, tmp_path):
    """A function that starts `segdeploy WORDS` and returns the process and the file of what it says.

    `before` is code that runs in it first; `environment` are variables of its own.
    """
    started = []

    def start(*words, before="", environment=None, name="said.txt"):
        said = tmp_path / name
        values = {"environment": environment or {}, "said": str(said), "before": before, "words": list(map(str, words))}
        process = _server.Process(target=exec, args=(CODE, values))
        process.start()
        started.append(process)
        return process, said

    yield start
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()


@pytest.fixture
def run(segdeploy):
    """The same, waited for: exit code (negative: the signal that killed it) and the lines that it said."""

    def finish(*words, seconds=120, **options):
        process, said = segdeploy(*words, **options)
        process.join(seconds)
        assert process.exitcode is not None
        text = said.read_text() if said.exists() else ""
        said.unlink(missing_ok=True)
        return process.exitcode, text

    return finish


@pytest.fixture(scope="session")
def plain_config() -> str:
    """The YAML of a network that any number of processes train alike."""
    return PLAIN


@pytest.fixture(scope="session")
def dies():
    """A function that gives code, to be run `before`: a process sends itself a signal before step `left`, from 0."""
    return lambda name, left=2: DIES.format(signal=name, left=left)


@pytest.fixture
def arguments(table, tmp_path):
    """A function that gives the words of `segdeploy train` for a configuration and the module's own `table`."""

    def make(text, *words):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        return ["train", "-c", file, "--dataset", table, "-o", tmp_path, "--device", "cpu", *words]

    return make


@pytest.fixture
def together(segdeploy, tmp_path):
    """A function that runs `segdeploy WORDS` in two processes on one machine: exit codes and what each said."""

    def finish(*words, before=("", ""), seconds=120, linger=20):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pair = []
        for rank in range(2):
            variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            environment = {key: str(value) for key, value in variables.items()}
            pair.append(segdeploy(*words, before=before[rank], environment=environment, name=f"said.{rank}"))
        pair[0][0].join(seconds)
        pair[1][0].join(linger)
        codes = [process.exitcode for process, _ in pair]
        texts = [said.read_text() if said.exists() else "" for _, said in pair]
        for _, said in pair:
            said.unlink(missing_ok=True)
        return codes, texts

    return finish
