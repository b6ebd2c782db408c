"""What sizes timm's models take, by the file of timm that they are written in.

Measured by benchmarks/probe_timm.py; the whole table is benchmarks/results/timm_features_*.md.
"""

from __future__ import annotations

from fnmatch import fnmatch

import timm

# Exported with free height and width, every measured model of these files, but for the exceptions below, is right at
# sizes that were not the example's, and takes any size. What took torch too long, or more memory than there was,
# goes by the smaller models of its kind: the file, its layer classes and the form of its sizes.
_FREE = (
    "byobnet",
    "convnext",
    "cspnet",
    "cspnext",
    "densenet",
    "dpn",
    "edgenext",
    "efficientnet",
    "efficientvim",
    "efficientvit_mit",
    "efficientvit_msra",
    "fasternet",
    "fastvit",
    "focalnet",
    "ghostnet",
    "hardcorenas",
    "hgnet",
    "iformer",
    "inception_next",
    "lcnetv2",
    "lowformer",
    "mambaout",
    "metaformer",
    "mobilenetv3",
    "nextvit",
    "nfnet",
    "pvt_v2",
    "rdnet",
    "regnet",
    "repghost",
    "repvit",
    "res2net",
    "resnest",
    "resnet",
    "resnetv2",
    "rexnet",
    "selecsls",
    "senet",
    "shvit",
    "sknet",
    "starnet",
    "swiftformer",
    "tiny_vit",
    "twins",
    "vgg",
    "vovnet",
    "xception_aligned",
)

# Models of these files, by patterns of their names: pooling that fixes sizes, mixed convolutions, attention in windows;
# selecsls84 differs from torch by 2e-3 at any size.
_EXCEPT = (
    "*efficientnet_cc_*",
    "bat_resnext*",
    "pvt_v2_*_li",
    "resnet*_clip*",
    "resnet50_mlp",
    "*resnetaa*",
    "*resnextaa*",
    "selecsls84",
)

# Height and width must be multiples of these; maps of different stages do not fit together otherwise.
_MULTIPLES = {"csatv2": 8, "dla": 32, "hieradet_sam2": 32, "hrnet": 32, "tresnet": 4}


def has_free_sizes(model_name: str) -> bool:
    """Whether the model's graph may leave height and width free."""
    excepted = any(fnmatch(model_name, pattern) for pattern in _EXCEPT)
    return bool(timm.models.is_model_in_modules(model_name, _FREE)) and not excepted


def multiple_of(model_name: str) -> int:
    """The number that height and width must be multiples of, by the model's file; 1 where any size will do."""
    return next((m for file, m in _MULTIPLES.items() if timm.models.is_model_in_modules(model_name, [file])), 1)
