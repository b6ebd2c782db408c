"""A decoder for segdeploy; see `decoder`."""
