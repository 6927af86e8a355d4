"""Tracks of charged particles: collisions, graphs of hits, networks, track building, metrics."""
