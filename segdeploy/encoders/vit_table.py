"""Which timm model stands behind each name of a plain vision transformer: data only, as in `family_table.py`."""

from __future__ import annotations

from segdeploy.encoders.family_table import Family

_HUB = "pretrained_model_name_or_path"

PLAIN_FAMILIES = (
    Family(
        name="vit",
        summary="plain vision transformer with a simple feature pyramid (Dosovitskiy et al. 2020)",
        default="b_16",
        models={
            "b_16": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
            "b_32": "vit_base_patch32_224.augreg_in21k_ft_in1k",
            "l_16": "vit_large_patch16_224.augreg_in21k_ft_in1k",
            "l_32": "vit_large_patch32_384.orig_in21k_ft_in1k",
            "h_14": "vit_huge_patch14_224.orig_in21k",
        },
    ),
    Family(
        name="dinov2",
        summary="DINOv2, self-supervised, with a simple feature pyramid (Oquab et al. 2023)",
        key=_HUB,
        default="facebook/dinov2-base",
        models={
            f"facebook/dinov2-{infix}{size}": f"vit_{size}_patch14_{registers}dinov2.lvd142m"
            for infix, registers in (("", ""), ("with-registers-", "reg4_"))
            for size in ("small", "base", "large", "giant")
        },
    ),
    Family(
        name="clip",
        summary="CLIP's image encoder with a simple feature pyramid (Radford et al. 2021)",
        key=_HUB,
        default="openai/clip-vit-base-patch32",
        models={
            "openai/clip-vit-base-patch32": "vit_base_patch32_clip_quickgelu_224.openai",
            "openai/clip-vit-base-patch16": "vit_base_patch16_clip_quickgelu_224.openai",
            "openai/clip-vit-large-patch14": "vit_large_patch14_clip_quickgelu_224.openai",
            "openai/clip-vit-large-patch14-336": "vit_large_patch14_clip_quickgelu_336.openai",
        },
    ),
    Family(
        name="siglip",
        summary="SigLIP's image encoder with a simple feature pyramid (Zhai et al. 2023, Tschannen et al. 2025)",
        key=_HUB,
        default="google/siglip-base-patch16-224",
        models={
            **{
                f"google/siglip-{size}": f"vit_{size.replace('-', '_')[:-3]}siglip_{size[-3:]}.webli"
                for size in (
                    "base-patch16-224",
                    "base-patch16-256",
                    "base-patch16-384",
                    "base-patch16-512",
                    "large-patch16-256",
                    "large-patch16-384",
                    "so400m-patch14-224",
                    "so400m-patch14-384",
                )
            },
            "google/siglip-base-patch16-256-multilingual": "vit_base_patch16_siglip_256.webli_i18n",
            **{
                f"google/siglip2-{size}": f"vit_{size.replace('-', '_')[:-3]}siglip_{size[-3:]}.v2_webli"
                for size in (
                    "base-patch16-224",
                    "base-patch16-256",
                    "base-patch16-384",
                    "base-patch16-512",
                    "base-patch32-256",
                    "large-patch16-256",
                    "large-patch16-384",
                    "large-patch16-512",
                    "so400m-patch14-224",
                    "so400m-patch16-256",
                    "so400m-patch16-384",
                    "so400m-patch16-512",
                )
            },
            "google/siglip2-so400m-patch14-384": "vit_so400m_patch14_siglip_378.v2_webli",
            "google/siglip2-giant-opt-patch16-256": "vit_giantopt_patch16_siglip_256.v2_webli",
            "google/siglip2-giant-opt-patch16-384": "vit_giantopt_patch16_siglip_384.v2_webli",
        },
    ),
)
