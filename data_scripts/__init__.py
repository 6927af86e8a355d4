"""Makers of the data that the experiments use."""
