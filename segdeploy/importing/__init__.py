"""Networks that were trained elsewhere, as models of segdeploy."""
