"""Tracks from hits by classifying edges with a graph network."""
