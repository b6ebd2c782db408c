"""`segdeploy init`: a data set in, a commented configuration that trains out."""
