"""The description of a model (`spec`, no torch) and the model itself (`segmenter`)."""
