"""The networks that benchmarks measure where speed alone counts: run folders with random weights, no training needed.

Time does not depend on what weights have learnt. Labels are compared all the same, so the class layer is centred: as
random weights come, one class would win everywhere, and equal labels would mean nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MODELS = {
    "mobile U-Net": ("timm, model_name: mobilenetv3_large_100, use_pretrained: false", "unet"),
    "SegFormer-B0": ("mit", "segformer"),
    "ConvNeXt V2 U-Net": ("timm, model_name: convnextv2_tiny, use_pretrained: false", "unet"),
}
"""Encoder and decoder, as a configuration writes them."""
CLASSES = [
    "background",
    "disc",
    "box",
    "gear",
    "wrench",
    "sponge",
    "cable",
    "other_7",
    "other_8",
    "other_9",
    "other_10",
]
"""Those of `segdeploy.data.demo`, whose pictures are the inputs, and more that never occur: 11 as in CamVid."""


def config_of(name: str, size: tuple[int, int]) -> str:
    """The YAML of one of `MODELS`; `size` is (height, width) of its images, pixels."""
    encoder, decoder = MODELS[name]
    image = f"preprocessing: {{height: {size[0]}, width: {size[1]}}}, encoder: {{type: {encoder}}}"
    mask = f"preprocessing: {{classes: [{', '.join(CLASSES)}]}}, decoder: {{type: {decoder}}}"
    return (
        f"input_features: [{{name: image, type: image, {image}}}]\n"
        f"output_features: [{{name: mask, type: image, {mask}}}]\n"
    )


def make_run(name: str, size: tuple[int, int], folder: Path) -> Path:
    """A run folder `folder` of one of `MODELS`, as `segdeploy train` leaves it for export; always the same weights."""
    import torch

    from segdeploy import files
    from segdeploy import run_folder as place
    from segdeploy.checkpoint import save_weights
    from segdeploy.config import parse_config
    from segdeploy.model.segmenter import from_config

    config = parse_config(config_of(name, size))
    torch.manual_seed(0)
    spec, segmenter = from_config(config, config.mask.preprocessing.class_map())
    with torch.no_grad():
        logits = segmenter.eval()(torch.randn(1, 3, *size))
        segmenter.get_parameter("head.bias").sub_(logits.mean((0, 2, 3)))
    model = folder / place.MODEL_FOLDER
    files.write_text(model / place.SPEC_FILE, spec.to_json() + "\n")
    files.write_text(model / place.CONFIG_FILE, config.model_dump_json(indent=2) + "\n")
    save_weights(model / place.WEIGHTS_FILE, segmenter, {"parameters": sum(p.numel() for p in segmenter.parameters())})
    return folder
