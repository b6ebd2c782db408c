"""The update rule, which parameters learn at which rate, and the limits on the gradient; in Ludwig's names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from segdeploy.config.bounds import NonNegative
from segdeploy.config.refused import REFUSED_OPTIMIZERS
from segdeploy.frozen import Frozen

RULES: dict[str, dict[str, Any]] = {
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False},
    "adam": {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False},
    "sgd": {"momentum": 0.0, "dampening": 0.0, "nesterov": False},
    "adadelta": {"rho": 0.9, "eps": 1e-6},
    "adagrad": {"lr_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10},
    "adamax": {"betas": (0.9, 0.999), "eps": 1e-8},
    "nadam": {"betas": (0.9, 0.999), "eps": 1e-8, "momentum_decay": 4e-3},
    "radam": {"betas": (0.9, 0.999), "eps": 1e-8},
    "rmsprop": {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False},
    "adafactor": {"eps": 1e-30},
    "adan": {"betas": (0.98, 0.92, 0.99), "eps": 1e-8},
    "lamb": {"betas": (0.9, 0.999), "eps": 1e-6},
    "lars": {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "trust_coeff": 1e-3},
    "lion": {"betas": (0.9, 0.99)},
    "muon": {"momentum": 0.95, "nesterov": True, "ns_steps": 5, "betas": (0.9, 0.95), "eps": 1e-7},
}
"""The keys of each rule, and their defaults: those of its paper, or of torch where the paper has none."""

# Runs of earlier versions keep these keys for every rule.
_ONCE_FOR_ALL = {"betas": (0.9, 0.999), "eps": 1e-8, "momentum": 0.0, "nesterov": False}
_NO_KEYS = frozenset({"type", "weight_decay", "layer_decay", "encoder_lr_scale"})

Decay = Annotated[float, Field(ge=0, lt=1)]


def _not_refused(value: Any) -> Any:
    if isinstance(value, str) and value in REFUSED_OPTIMIZERS:
        raise ValueError(f"{value} cannot be had here: {REFUSED_OPTIMIZERS[value]}")
    return value


class Optimizer(Frozen):
    """The update rule; norms and biases are never decayed. A key that is null has the rule's own default."""

    type: Annotated[
        Literal[
            "adamw", "adam", "sgd", "adadelta", "adagrad", "adamax", "nadam", "radam", "rmsprop", "adafactor", "adan",
            "lamb", "lars", "lion", "muon",
        ],
        BeforeValidator(_not_refused),
    ] = "adamw"  # fmt: skip
    """adamw: Loshchilov and Hutter 2019. adam: Kingma and Ba 2015. sgd: gradient descent with momentum. muon (Jordan et
    al. 2024) takes adamw's rates here, lion (Chen et al. 2023) a third to a tenth of them. The others as in their
    papers; adafactor with the rate that the schedule says."""
    weight_decay: NonNegative | None = None
    """Weight decay; decoupled in adamw, adafactor, lion and muon. null: 0.01 for adamw, 0 for the others."""
    betas: Annotated[tuple[Decay, ...], Field(min_length=2, max_length=3)] | None = None
    """Decay of the running mean and of the running square of the gradient; in adan of its difference between them.
    In muon: of adamw, which moves what is no matrix."""
    eps: PositiveFloat | None = None
    """Added to the root of the running square."""
    amsgrad: bool | None = None
    """Whether adam and adamw divide by the largest running square so far (Reddi et al. 2018)."""
    momentum: Decay | None = None
    """Share of the last step that is kept."""
    dampening: Decay | None = None
    """Share of the gradient that does not enter the momentum."""
    nesterov: bool | None = None
    """Whether to look ahead along the momentum."""
    rho: Decay | None = None
    """Decay of adadelta's running squares."""
    alpha: Decay | None = None
    """Decay of rmsprop's running square."""
    centered: bool | None = None
    """Whether rmsprop divides by the variance of the gradient instead of its square."""
    momentum_decay: NonNegative | None = None
    """How fast nadam's momentum reaches betas[0]."""
    lr_decay: NonNegative | None = None
    """By which adagrad's own rate falls with each step."""
    initial_accumulator_value: NonNegative | None = None
    """What adagrad's sums of squares start from."""
    trust_coeff: PositiveFloat | None = None
    """Length of lars's step, as a share of the length of the weights."""
    ns_steps: Annotated[int, Field(ge=1, le=20)] | None = None
    """Newton-Schulz iterations that make muon's step orthogonal."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Each layer of the encoder learns at this share of the rate of the layer behind it, the deepest at this share of
    the decoder's (Clark et al. 2020, https://arxiv.org/abs/2003.10555). null: all layers at one rate."""
    encoder_lr_scale: PositiveFloat = 1.0
    """The encoder learns at this multiple of the decoder's rate."""

    @model_validator(mode="after")
    def _keys_of_the_rule(self) -> Optimizer:
        rule = RULES[self.type]
        for key in sorted(self.model_fields_set - _NO_KEYS):
            value = getattr(self, key)
            if key not in rule and value is not None and value != _ONCE_FOR_ALL.get(key):
                owners = ", ".join(name for name, keys in RULES.items() if key in keys)
                raise ValueError(f"{key} belongs to {owners}; {self.type} has {', '.join(rule)}")
        if self.betas is not None and "betas" in rule and len(self.betas) != len(rule["betas"]):
            raise ValueError(f"{self.type} has {len(rule['betas'])} betas, found {len(self.betas)}")
        keys = self.settings
        if keys.get("nesterov") and not keys["momentum"]:
            raise ValueError("nesterov needs a momentum above 0")
        if keys.get("nesterov") and keys.get("dampening"):
            raise ValueError("nesterov needs a dampening of 0")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The rule's own keys with their values; see `RULES`."""
        given = {key: getattr(self, key) for key in RULES[self.type]}
        return RULES[self.type] | {key: value for key, value in given.items() if value is not None}


class GradientClipping(Frozen):
    """Limits on the gradient, in this order."""

    clipglobalnorm: PositiveFloat | None = 1.0
    """Largest L2 norm over all gradients together; null: no limit."""
    clipnorm: PositiveFloat | None = None
    """Largest L2 norm of each parameter's gradient; null: no limit."""
    clipvalue: PositiveFloat | None = None
    """Largest absolute value of each number in the gradients; null: no limit."""

    @property
    def limits(self) -> bool:
        """Whether there is any limit."""
        return any(limit is not None for limit in (self.clipglobalnorm, self.clipnorm, self.clipvalue))
