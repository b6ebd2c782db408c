"""Tables, images and masks; nothing here imports torch except `dataset` and `augment`."""
