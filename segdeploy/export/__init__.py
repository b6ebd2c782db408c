"""From a run to a bundle: graph, engine, verification."""
