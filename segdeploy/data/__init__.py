"""Tables, images and masks; nothing here imports torch except `augment` and the modules that it is made of."""
