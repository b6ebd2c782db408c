"""Accuracy and speed of every backend in one run, and the report."""
