"""DeepLabV3+ as a decoder of segdeploy."""
