"""segdeploy: from labelled images to a verified segmentation engine."""

__version__ = "0.1.0"
