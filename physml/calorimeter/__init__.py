"""Showers in calorimeters: files, a parametrised maker, features, and the judge of generators."""

from physml.calorimeter.features import features
from physml.calorimeter.geometry import Geometry
from physml.calorimeter.simulate import simulate

__all__ = ["Geometry", "features", "simulate"]
