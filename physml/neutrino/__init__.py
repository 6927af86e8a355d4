"""Neutrino events in a two-view detector: event maker, pixel maps, networks."""

from physml.neutrino.pixelmaps import pixel_maps
from physml.neutrino.simulate import simulate

__all__ = ["pixel_maps", "simulate"]
