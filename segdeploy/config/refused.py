"""Encoder types of Ludwig's that give no pyramid of maps here, and the nearest type that does; data only."""

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
