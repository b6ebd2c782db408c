"""From a model that another library trained to a run of segdeploy."""
