"""What stays float: against a model of noise that is known, and a network with one layer that eight bits ruin."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from segdeploy.errors import ExportError
from segdeploy.export.quantize import quantize
from segdeploy.export.sensitivity import Judge, Loss, leave_out


class Noisy:
    """Graphs are sets of layers; noise adds up, and so do lost labels."""

    def __init__(self, noise):
        self.noise = noise
        self.runs = 0

    def __call__(self, layers):
        self.runs += 1
        total = sum(self.noise[name] for name in layers)
        return Loss(1 - total, total)

    def choose(self, least, evaluations=1000):
        layers = list(self.noise)
        return leave_out(layers, frozenset, self, min_agreement=least, evaluations=evaluations)


def drawn(count, seed=0):
    random = np.random.default_rng(seed)
    noise = 10 ** random.uniform(-6, -3, count)
    noise[random.integers(count, size=3)] = [0.02, 0.05, 0.1]
    return {f"layer {i}": float(value) for i, value in enumerate(noise)}


@pytest.mark.parametrize("least", [0.999, 0.99, 0.95, 0.9])
def test_the_fewest_of_the_worst_are_left_out(least):
    noise = drawn(40)
    found = Noisy(noise).choose(least)
    worst_first = sorted(noise, key=noise.get, reverse=True)
    kept = next(i for i in range(40) if 1 - sum(noise[n] for n in worst_first[i:]) >= least)
    assert set(found.left_out) == set(worst_first[:kept])
    assert found.loss.agreement >= least > found.all_in.agreement or kept == 0
    for name, loss in found.left_out.items():
        assert loss.noise == noise[name]


def test_nothing_is_measured_where_nothing_is_lost():
    judge = Noisy(dict.fromkeys("abcdef", 1e-4))
    assert judge.choose(0.99).left_out == {}
    assert judge.runs == 1


@pytest.mark.parametrize(("count", "evaluations"), [(40, 60), (100, 60), (300, 60), (300, 24)])
def test_evaluations_are_kept_to_and_the_worst_are_still_found(count, evaluations):
    noise = drawn(count, seed=1)
    judge = Noisy(noise)
    found = judge.choose(0.9, evaluations)
    assert judge.runs <= evaluations
    assert found.loss.agreement >= 0.9
    assert max(noise, key=noise.get) in found.left_out
    assert len(found.left_out) < count / 3


def test_layers_that_all_ruin_the_labels_are_refused_in_a_line():
    with pytest.raises(ExportError, match=r"no layer can be INT8 if 90\.00% of the labels are to stay") as error:
        Noisy(dict.fromkeys("abcdef", 0.2)).choose(0.9)
    assert "\n" not in str(error.value)


def test_loss_is_numpys(toy, pictures):
    source, other = toy(), toy()
    bias = next(c for c in other.graph.initializer if c.name == "head.bias")
    moved = onnx.numpy_helper.to_array(bias) + np.float32([0.5, 0, 0, -0.2, 0])
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, "head.bias"))
    found = Judge(source, pictures)(other)

    def run(model):
        model.graph.output.append(onnx.ValueInfoProto(name="last_out"))
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        values = [session.run(["last_out", "mask"], {"image": image}) for image in pictures]
        return (np.concatenate(v) for v in zip(*values, strict=True))

    (logits, labels), (moved_logits, moved_labels) = run(source), run(other)
    assert found.agreement == (labels == moved_labels).mean() < 1

    def power(x):
        return ((x - x.mean(axis=1, keepdims=True)) ** 2).sum()

    assert found.noise == pytest.approx(power(moved_logits - logits) / power(logits), rel=1e-3)
    same = Judge(toy(), pictures)(toy())
    assert (same.agreement, same.noise) == (1, 0)


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_a_layer_that_eight_bits_ruin_is_found_and_left_out(toy, pictures, target):
    """One channel is 300 times as large as the others of its tensor, which one step cannot serve."""
    model = toy(outlier=300, seed=3)
    ruined = quantize(model, pictures, min_agreement=0, targets=[target])[target]
    assert ruined.loss.agreement < 0.7
    found = quantize(model, pictures, min_agreement=0.95, targets=[target])[target]
    assert found.loss.agreement >= 0.95
    left_out = {d.node for d in found.decisions if d.reason.startswith("left out, by itself: noise")}
    # "smooth" reads the tensor; on a CPU "lateral" also writes it in eight bits.
    assert left_out == ({"lateral", "smooth"} if target == "cpu" else {"smooth"})
    assert all(d.precision == "fp32" for d in found.decisions if d.node in left_out)
    session = ort.InferenceSession(found.model.SerializeToString(), providers=["CPUExecutionProvider"])
    truth = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pairs = [(session.run(None, {"image": i})[0], truth.run(None, {"image": i})[0]) for i in pictures]
    assert np.mean([(a == b).mean() for a, b in pairs]) > 0.93
