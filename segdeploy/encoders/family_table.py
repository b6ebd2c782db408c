"""Which timm model stands behind each name of Ludwig's: one table, data only.

Where timm has torchvision's own weights (tags tv_in1k, tv2_in1k), they are taken, as Ludwig takes them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One encoder type: the key that chooses a variant, its default, and timm's name for each variant."""

    name: str
    summary: str
    default: str | int
    models: dict[str | int, str]
    key: str = "model_variant"


def _metaformer(name: str, summary: str) -> Family:
    sizes = [f"{name}_{size}" for size in ("s18", "s36", "m36", "b36")]
    models: dict[str | int, str] = {size: f"{size}.sail_in1k" for size in sizes}
    for size in sizes:
        models |= {tagged: tagged for tagged in (f"{size}.sail_in22k_ft_in1k", f"{size}.sail_in22k_ft_in1k_384")}
    return Family(name=name, summary=summary, key="model_name", default=sizes[0], models=models)


def _swin(name: str, summary: str) -> Family:
    sizes = {"t": "tiny", "s": "small", "b": "base"}
    models: dict[str | int, str] = {k: f"swin_{v}_patch4_window7_224.ms_in1k" for k, v in sizes.items()}
    return Family(name=name, summary=summary, default="t", models=models)


def _convnextv2() -> Family:
    # A name without weights means those that saw most pictures.
    best = dict.fromkeys(("atto", "femto", "pico"), "fcmae_ft_in1k")
    best |= dict.fromkeys(("nano", "tiny", "base", "large"), "fcmae_ft_in22k_in1k")
    best["huge"] = "fcmae_ft_in22k_in1k_384"
    models: dict[str | int, str] = {f"convnextv2_{size}": f"convnextv2_{size}.{tag}" for size, tag in best.items()}
    tagged = [f"{name}.fcmae_ft_in1k" for name in models]
    tagged += [f"convnextv2_{size}.fcmae_ft_in22k_in1k{at}" for at in ("", "_384") for size in ("base", "large")]
    models |= {name: name for name in tagged}
    summary = "ConvNeXt V2 (Woo et al. 2023)"
    return Family(name="convnextv2", summary=summary, key="model_name", default="convnextv2_base", models=models)


FAMILIES = (
    _convnextv2(),
    _metaformer("caformer", "CAFormer: convolutions, then attention (Yu et al. 2022)"),
    _metaformer("convformer", "ConvFormer: separable convolutions (Yu et al. 2022)"),
    Family(
        name="poolformer",
        summary="PoolFormer: average pooling as token mixer (Yu et al. 2021)",
        key="model_name",
        default="poolformerv2_s12",
        models={
            f"{version}_{size}": f"{version}_{size}.sail_in1k"
            for version in ("poolformerv2", "poolformer")
            for size in ("s12", "s24", "s36", "m36", "m48")
        },
    ),
    _swin("swin_transformer", "Swin Transformer, any image size (Liu et al. 2021)"),
    _swin("swin", "swin_transformer by its short name"),
    Family(
        name="convnext",
        summary="ConvNeXt (Liu et al. 2022)",
        default="base",
        models={size: f"convnext_{size}.fb_in1k" for size in ("tiny", "small", "base", "large")},
    ),
    Family(
        name="resnet",
        summary="ResNet (He et al. 2015)",
        default=50,
        models={
            18: "resnet18.tv_in1k",
            34: "resnet34.tv_in1k",
            50: "resnet50.tv2_in1k",
            101: "resnet101.tv2_in1k",
            152: "resnet152.tv2_in1k",
        },
    ),
    Family(
        name="resnext",
        summary="ResNeXt (Xie et al. 2016)",
        default="50_32x4d",
        models={
            "50_32x4d": "resnext50_32x4d.tv2_in1k",
            "101_32x8d": "resnext101_32x8d.tv2_in1k",
            "101_64x4d": "resnext101_64x4d.tv_in1k",
        },
    ),
    Family(
        name="wide_resnet",
        summary="Wide ResNet (Zagoruyko and Komodakis 2016)",
        default="50_2",
        models={"50_2": "wide_resnet50_2.tv2_in1k", "101_2": "wide_resnet101_2.tv2_in1k"},
    ),
    Family(
        name="efficientnet",
        summary="EfficientNet and EfficientNetV2 (Tan and Le 2019, 2021)",
        default="b0",
        models={
            "b0": "efficientnet_b0.ra_in1k",
            "b1": "efficientnet_b1.ft_in1k",
            "b2": "efficientnet_b2.ra_in1k",
            "b3": "efficientnet_b3.ra2_in1k",
            "b4": "efficientnet_b4.ra2_in1k",
            "b5": "tf_efficientnet_b5.ra_in1k",
            "b6": "tf_efficientnet_b6.aa_in1k",
            "b7": "tf_efficientnet_b7.ra_in1k",
            "v2_s": "tf_efficientnetv2_s.in1k",
            "v2_m": "tf_efficientnetv2_m.in1k",
            "v2_l": "tf_efficientnetv2_l.in1k",
        },
    ),
    Family(
        name="mobilenetv3",
        summary="MobileNetV3 (Howard et al. 2019)",
        default="small",
        models={"small": "mobilenetv3_small_100.lamb_in1k", "large": "mobilenetv3_large_100.ra_in1k"},
    ),
    Family(
        name="mobilenetv2",
        summary="MobileNetV2 (Sandler et al. 2018)",
        default="base",
        models={"base": "mobilenetv2_100.ra_in1k"},
    ),
    Family(
        name="mnasnet",
        summary="MnasNet (Tan et al. 2018); timm has no 1_3, and trained weights for 1_0 alone",
        default="0_5",
        models={"0_5": "mnasnet_050", "0_75": "mnasnet_075", "1_0": "mnasnet_100.rmsp_in1k"},
    ),
    Family(
        name="regnet",
        summary="RegNetX and RegNetY (Radosavovic et al. 2020)",
        default="x_1_6gf",
        models={
            "x_400mf": "regnetx_004_tv.tv2_in1k",
            "x_800mf": "regnetx_008.tv2_in1k",
            "x_1_6gf": "regnetx_016.tv2_in1k",
            "x_3_2gf": "regnetx_032.tv2_in1k",
            "x_8gf": "regnetx_080.tv2_in1k",
            "x_16gf": "regnetx_160.tv2_in1k",
            "x_32gf": "regnetx_320.tv2_in1k",
            "y_400mf": "regnety_004.tv2_in1k",
            "y_800mf": "regnety_008_tv.tv2_in1k",
            "y_1_6gf": "regnety_016.tv2_in1k",
            "y_3_2gf": "regnety_032.tv2_in1k",
            "y_8gf": "regnety_080_tv.tv2_in1k",
            "y_16gf": "regnety_160.tv2_in1k",
            "y_32gf": "regnety_320.tv2_in1k",
            "y_128gf": "regnety_1280.swag_ft_in1k",
        },
    ),
    Family(
        name="densenet",
        summary="DenseNet (Huang et al. 2016)",
        default=121,
        models={depth: f"densenet{depth}.tv_in1k" for depth in (121, 161, 169, 201)},
    ),
    Family(
        name="vgg",
        summary="VGG, without and with (_bn) batch normalisation (Simonyan and Zisserman 2014)",
        default=11,
        models={
            **{depth: f"vgg{depth}.tv_in1k" for depth in (11, 13, 16, 19)},
            **{f"{depth}_bn": f"vgg{depth}_bn.tv_in1k" for depth in (11, 13, 16, 19)},
        },
    ),
    Family(
        name="maxvit",
        summary="MaxViT, images of multiples of 224 alone (Tu et al. 2022)",
        default="t",
        models={"t": "maxvit_tiny_tf_224.in1k"},
    ),
)
