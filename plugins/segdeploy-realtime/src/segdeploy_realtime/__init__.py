"""Networks for real-time segmentation as encoders and decoders of segdeploy."""
