"""One way to run a model, whatever runs it. Nothing here imports torch unless the torch backend is opened."""
