"""Neutrino events in a two-view detector: event maker, pixel maps, networks."""
