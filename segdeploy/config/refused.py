"""What Ludwig has and segdeploy does not, and what to take instead; data only."""

REFUSED_ENCODERS: dict[str, str] = {
    "stacked_cnn": "its layers are free, so that it has no fixed levels for a decoder; nearest: unet",
    "mlp_mixer": "it mixes a fixed number of patches, so that it takes one image size alone; nearest: poolformer",
    "alexnet": "it has one coarse map and timm does not have it; nearest: vgg",
    "squeezenet": "timm does not have it; nearest: mobilenetv3",
    "shufflenet_v2": "timm does not have it; nearest: mobilenetv2",
    "googlenet": "timm does not have it; nearest: resnet",
    "inceptionv3": "its convolutions without padding shrink the maps by more than their strides; nearest: resnext",
    "_resnet_legacy": "Ludwig keeps it for old models alone; nearest: resnet",
    "_vit_legacy": "Ludwig keeps it for old models alone; nearest: vit",
}
"""Ludwig's type -> why it cannot segment here, and `nearest: TYPE`."""

_QUANTISED = "it keeps its state in 8 bits by bitsandbytes, which networks of this size do not need; nearest: {}"
REFUSED_OPTIMIZERS: dict[str, str] = {
    "schedule_free_adamw": "it validates other weights than it trains; nearest: adamw, with trainer.ema_decay",
    "lbfgs": "it needs the loss of the whole training set at each step; nearest: adamw",
    "soap": "neither torch nor timm has it; nearest: muon",
    "ftrl": "neither torch nor timm has it; nearest: adagrad",
    **{f"{name}_8bit": _QUANTISED.format(name) for name in ("sgd", "adam", "adamw", "adagrad", "rmsprop", "lamb",
                                                            "lars", "lion")},
    **{f"paged_{name}": _QUANTISED.format(name) for name in ("adam", "adamw", "lion")},
    **{f"paged_{name}_8bit": _QUANTISED.format(name) for name in ("adam", "adamw", "lion")},
}  # fmt: skip
"""Ludwig's optimiser -> why it cannot be had here, and `nearest: TYPE`."""
