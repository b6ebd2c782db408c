"""Every rule against the class of torch or timm that it stands for, and which parameters learn at which rate."""

import copy
import re

import pytest
import timm
import torch
from timm.optim import Adafactor, Adan, Lamb, Lars, Lion, Muon, param_groups_layer_decay
from torch import nn

from segdeploy.checkpoint import load_training_state, save_training_state, training_state
from segdeploy.config.optimizer import RULES, Optimizer
from segdeploy.config.trainer import Trainer
from segdeploy.encoders import mit, unet, vit
from segdeploy.encoders import timm as any_timm
from segdeploy.encoders.mit_table import MitPresetConfig
from segdeploy.errors import ConfigError
from segdeploy.plugin import FeatureMap
from segdeploy.train.optim import build_optimizer, parameter_groups


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def learn(model, optimizer, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(2, 3, 8, 8, generator=generator)
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()


def build(model, name, **keys):
    return build_optimizer(model, Trainer(learning_rate=0.01, optimizer=Optimizer(type=name, **keys)))


OTHERS = {
    "adamw": {"betas": (0.8, 0.9), "eps": 1e-3, "amsgrad": True},
    "adam": {"betas": (0.8, 0.9), "eps": 1e-3, "amsgrad": True},
    "sgd": {"momentum": 0.9, "nesterov": True},
    "adadelta": {"rho": 0.8, "eps": 1e-3},
    "adagrad": {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-3},
    "adamax": {"betas": (0.8, 0.9), "eps": 1e-3},
    "nadam": {"betas": (0.8, 0.9), "eps": 1e-3, "momentum_decay": 0.1},
    "radam": {"betas": (0.8, 0.9), "eps": 1e-3},
    "rmsprop": {"alpha": 0.5, "eps": 1e-3, "momentum": 0.9, "centered": True},
    "adafactor": {"eps": 1e-3},
    "adan": {"betas": (0.8, 0.9, 0.7), "eps": 1e-3},
    "lamb": {"betas": (0.8, 0.9), "eps": 1e-3},
    "lars": {"momentum": 0.9, "dampening": 0.5, "trust_coeff": 0.1},
    "lion": {"betas": (0.8, 0.9)},
    "muon": {"momentum": 0.8, "nesterov": False, "ns_steps": 3, "betas": (0.8, 0.9), "eps": 1e-3},
}
CLASSES = {
    "adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD, "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad, "adamax": torch.optim.Adamax, "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam, "rmsprop": torch.optim.RMSprop, "adafactor": Adafactor, "adan": Adan, "lamb": Lamb,
    "lars": Lars, "lion": Lion, "muon": Muon,
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("given", ["defaults", "others"])
def test_rules(name, given):
    """Four steps, against the class with the same keys; decay for what has more than one dimension."""
    keys = OTHERS[name] if given == "others" else {}
    ours, theirs = network(), network()
    matrices, vectors = ([p for p in theirs.parameters() if (p.ndim > 1) is many] for many in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    options = {"max_grad_norm": None} if name == "lamb" else {}
    reference = CLASSES[name](groups, lr=0.01, **RULES[name] | keys | options)
    learn(theirs, reference, 4)
    optimizer = build(ours, name, weight_decay=0.1, **keys)
    assert type(optimizer) is CLASSES[name]
    learn(ours, optimizer, 4)
    before = network().state_dict()
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-4, atol=1e-6)
        if value.is_floating_point():
            assert not torch.equal(value, before[key])


@pytest.mark.parametrize("name", RULES)
def test_a_rule_goes_on_from_a_checkpoint_as_if_nothing_had_happened(name, tmp_path):
    keys = OTHERS[name] if name in ("sgd", "rmsprop", "lars", "adamw") else {}
    model = network()
    optimizer = build(model, name, weight_decay=0.1, **keys)
    learn(model, optimizer, 3)
    save_training_state(tmp_path / "state", training_state(model, None, optimizer), {})
    learn(model, optimizer, 2, seed=5)
    again = network()
    resumed = build(again, name, weight_decay=0.1, **keys)
    load_training_state(tmp_path / "state", again, None, resumed)
    learn(again, resumed, 2, seed=5)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "adagrad"])
def test_fused_where_torch_has_it(name):
    assert all(group["fused"] for group in build(network(), name).param_groups)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_rates_by_layer_hold_without_decay_too(name):
    """timm's leave the step of a weight as it is where nothing decays."""
    model, plain = network(), network()
    learn(model, build(model, name), 1)
    learn(plain, build(plain, "sgd" if name == "lars" else "adam", **({} if name == "lars" else {"eps": 1e-6})), 1)
    before = network()[0].weight.detach()
    step, whole = before - model[0].weight.detach(), before - plain[0].weight.detach()
    share = 1e-3 if name == "lars" else 1.0
    assert step.norm().item() == pytest.approx(0.01 * share * before.norm().item(), rel=1e-3)
    assert torch.nn.functional.cosine_similarity(step.flatten(), whole.flatten(), 0).item() == pytest.approx(
        1, abs=1e-4
    )
    torch.testing.assert_close(model[1].bias, plain[1].bias)  # norms and biases learn plainly


def test_norms_and_biases_are_not_decayed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = build_optimizer(model, Trainer(learning_rate=0.1, optimizer=Optimizer(weight_decay=0.5)))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    after = dict(model.named_parameters())
    torch.testing.assert_close(after["0.weight"], before["0.weight"] * (1 - 0.1 * 0.5))
    assert all(torch.equal(after[n], before[n]) for n in ("0.bias", "1.weight", "1.bias"))


def test_decay_by_itself():
    for name, decay in (("adamw", 0.01), ("adam", 0.0), ("muon", 0.0)):
        groups = parameter_groups(network(), Optimizer(type=name))
        assert [(g["weight_decay"], g["lr_scale"]) for g in groups] == [(decay, 1.0), (0.0, 1.0)]


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1))
    model[0].requires_grad_(False)
    held = [p for g in build_optimizer(model, Trainer()).param_groups for p in g["params"]]
    assert {id(p) for p in held} == {id(p) for p in model[1].parameters()}


class Net(nn.Module):
    """An encoder and a little behind it."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Conv2d(8, 2, 1)


def scales(model, **keys):
    """lr_scale by the parameter's name."""
    names = {p: name for name, p in model.named_parameters()}
    groups = parameter_groups(model, Optimizer(**keys))
    found = {names[p]: group["lr_scale"] for group in groups for p in group["params"]}
    assert len(found) == len(names)
    assert [g["weight_decay"] for g in groups for p in g["params"]] == [
        0.01 if p.ndim > 1 else 0.0 for g in groups for p in g["params"]
    ]
    return found


def plain(name):
    """Without what a pyramid does to timm's names."""
    return re.sub(r"[._]|^encoder\.body\.(model\.|body\.)?", "", name)


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_convnext", "test_efficientnet", "test_vit", "swin_tiny_patch4_window7_224"]
)
def test_layers_of_timm_learn_as_timm_says(name):
    model = Net(vit.PlainEncoder(name, 8) if name == "test_vit" else any_timm.TimmEncoder(name))
    state = torch.get_rng_state()
    found = scales(model, layer_decay=0.7)
    assert torch.equal(torch.get_rng_state(), state)  # nothing that is drawn later depends on it
    whole = timm.create_model(name)
    names = {p: plain(n) for n, p in whole.named_parameters()}
    groups = param_groups_layer_decay(whole, layer_decay=0.7)
    expected = {names[p]: group["lr_scale"] for group in groups for p in group["params"]}
    ours = {plain(n): scale for n, scale in found.items() if n.startswith("encoder.body")}
    assert len(set(ours.values())) > 3
    assert ours.keys() <= expected.keys()
    assert ours == pytest.approx({n: expected[n] for n in ours})
    assert found["head.weight"] == 1


def test_pyramid_of_a_plain_transformer_is_not_of_its_depth():
    found = scales(Net(vit.PlainEncoder("test_vit", 8)), layer_decay=0.5, encoder_lr_scale=0.1)
    assert {scale for name, scale in found.items() if name.startswith("encoder.pyramid.")} == {1.0}
    assert found["encoder.body.norm.weight"] == pytest.approx(0.1 * 0.5)
    assert found["encoder.body.pos_embed"] == min(found.values()) < 0.01


@pytest.mark.parametrize(
    "encoder",
    [
        unet.UNetEncoder(unet.UNetEncoderConfig(base_channels=4, num_stages=2)),
        mit.build_preset("mit_b0", MitPresetConfig()),
    ],
    ids=["unet", "mit"],
)
def test_other_encoders_learn_by_level(encoder):
    found = scales(Net(encoder), layer_decay=0.5)
    levels = len(encoder.features)
    for name, scale in found.items():
        expected = 0.5 ** (levels - int(name.split(".")[2])) if name.startswith("encoder.") else 1
        assert scale == pytest.approx(expected), name
    assert encoder.training


class Branches(nn.Module):
    """What feeds the finest map is of the first level, however it is registered; `unused` feeds none."""

    features = (FeatureMap(channels=4, stride=4), FeatureMap(channels=4, stride=8))

    def __init__(self, side=None):
        super().__init__()
        self.side = side
        self.unused, self.late = nn.Linear(2, 2), nn.Conv2d(4, 4, 3, 2, 1)
        self.fine, self.stem = nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 4, 4)

    def forward(self, image):
        if self.side is not None and image.shape[-1] != self.side:
            raise ValueError(f"takes {self.side} pixels")
        x = self.stem(image)
        return self.fine(x), self.late(x)


def test_levels_by_what_they_depend_on():
    found = scales(Net(Branches()), layer_decay=0.5)
    order = {"stem": 0.25, "fine": 0.25, "late": 0.5, "unused": 0.5}
    assert found == {f"encoder.{n}.{w}": s for n, s in order.items() for w in ("weight", "bias")} | {
        "head.weight": 1,
        "head.bias": 1,
    }


def test_an_encoder_of_one_size_alone():
    model = Net(Branches(48))
    with pytest.raises(ConfigError, match=r"layer_decay: .* from a 64x64 image \(takes 48 pixels\); use encoder_lr_sc"):
        parameter_groups(model, Optimizer(layer_decay=0.5))
    found = scales(model, encoder_lr_scale=0.1)
    assert found["encoder.late.bias"] == 0.1
    assert found["head.bias"] == 1


def test_groups_start_at_their_own_rate():
    model = Net(unet.UNetEncoder(unet.UNetEncoderConfig(base_channels=4, num_stages=1)))
    optimizer = build(copy.deepcopy(model), "lion", encoder_lr_scale=0.5)
    assert {(g["lr_scale"], g["lr"]) for g in optimizer.param_groups} == {(0.5, 0.005), (1.0, 0.01)}
