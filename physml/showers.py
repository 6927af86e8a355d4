"""Electromagnetic showers in homogeneous matter and in plates: GFlash profiles of depth and radius.

Pure formulas of NumPy or JAX arrays, as in `physml.matter`. Energies GeV, depths in radiation
lengths (X0), radii in Molière radii. Source: Grindhammer and Peters, hep-ex/0001020, with the
coefficients of Geant4 11.4 (gflash), which implements it.
"""

from __future__ import annotations

import importlib
import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from physml.matter import Material, array_space, mixture


def _gamma_functions(xp: Any) -> Any:
    return importlib.import_module("scipy.special" if xp is np else "jax.scipy.special")


def conversion_depth(uniform: Float[Any, "*n"]) -> Float[Any, "*n"]:
    """Depth at which a photon makes a pair, X0: exponential of mean 9/7 (PDG, high energies).

    Args:
        uniform: deviates from (0, 1].
    """
    return -9 / 7 * array_space(uniform).log(uniform)


class Plates(NamedTuple):
    """What plates of two materials change in the profiles (hep-ex/0001020, sampling)."""

    frequency: float  # F: radiation length over the thickness of one pair of plates
    contrast: float  # 1 - e, the loss of signal by the step in atomic number


class Tuning(NamedTuple):
    """Changes of the published profiles, found against another simulation; by default none."""

    depth: float = 0.0  # X0, added to the mean depth of the maximum
    exponent: float = 0.0  # added to the mean alpha: below 0 makes showers longer
    depth_width: float = 1.0  # factor of the width of ln T
    exponent_width: float = 1.0  # factor of the width of ln alpha
    radius: float = 1.0  # factor of both radii
    share: float = 1.0  # factor of the share of the core


PUBLISHED = Tuning()


def plates(
    passive: tuple[Material, float], active: tuple[Material, float]
) -> tuple[Material, Plates]:
    """Average material of a stack of plates and its sampling terms (hep-ex/0001020).

    Args:
        passive: material and thickness of a plate, mm.
        active: the same of what is read out.
    """
    grams = [(part.density * thickness, part) for part, thickness in (passive, active)]
    pair = passive[1] + active[1]
    mixed = mixture(sum(gram for gram, _ in grams) / pair, grams)
    frequency = 10 * mixed.radiation_length / mixed.density / pair
    signal = 1 / (1 + 0.007 * (passive[0].z - active[0].z))
    return mixed, Plates(frequency, 1 - signal)


class ShowerShape(NamedTuple):
    """Longitudinal profile of showers: a gamma distribution of the depth t in X0."""

    alpha: Float[Any, "*n"]  # exponent plus one
    beta: Float[Any, "*n"]  # 1/X0
    mean_alpha: Float[Any, "*n"]  # alpha of the average shower


LOWEST_LOG = math.log(4.0)
"""Below 4 critical energies (0.3 GeV in plastic) the published widths and depths lose their sense
(their logarithms turn negative): there the shape of 4 critical energies E_c is used, its depth
scaled with ln(1 + E/E_c), the path of an electron that loses E + E_c per X0."""


def shower_shape(
    material: Material,
    energy: Float[Any, "*n"],
    normals: tuple[Float[Any, "*n"], Float[Any, "*n"]],
    plates: Plates | None = None,
    tuning: Tuning = PUBLISHED,
) -> ShowerShape:
    """Longitudinal profile of electron showers (hep-ex/0001020).

    Widths are at most 0.5, alpha at least 1.1, the mean depth of the maximum at least 0.5 X0
    before it shrinks, see `LOWEST_LOG`. Photons: start at `conversion_depth`.

    Args:
        material: of the medium; for plates the average one, from `plates`.
        energy: GeV; see `LOWEST_LOG` for low ones.
        normals: standard normal deviates; zeros give the average shower.
        plates: of a sampling calorimeter; None: homogeneous.
        tuning: changes of the published numbers.
    """
    xp = array_space(energy, *normals)
    y = energy / material.critical_energy
    log = xp.maximum(xp.log(y), LOWEST_LOG)
    shrink = xp.minimum(xp.log1p(y) / math.log1p(math.exp(LOWEST_LOG)), 1.0)
    mean_t, mean_a = log - 0.812, 0.81 + (0.458 + 2.26 / material.z) * log
    terms = (-1.4, 1.26, -0.58, 0.86, 0.705)
    if plates is not None:
        mean_t = mean_t - 0.55 / plates.frequency - 0.69 * plates.contrast
        mean_a = mean_a - 0.476 / plates.frequency
        terms = (-2.5, 1.25, -0.82, 0.79, 0.784)
    mean_t = xp.maximum(mean_t + tuning.depth, 0.5)
    mean_a = xp.maximum(mean_a + tuning.exponent, 1.1)
    width_t = tuning.depth_width * _width(xp, *terms[:2], log)
    width_a = tuning.exponent_width * _width(xp, *terms[2:4], log)
    rho = terms[4] - 0.023 * log
    plus, minus = ((1 + rho) / 2) ** 0.5 * normals[0], ((1 - rho) / 2) ** 0.5 * normals[1]
    top = mean_t * xp.exp(width_t * (plus + minus)) * shrink
    alpha = xp.maximum(mean_a * xp.exp(width_a * (plus - minus)), 1.1)
    return ShowerShape(alpha, (alpha - 1) / top, mean_a)


def _width(xp: Any, constant: float, slope: float, log: Any) -> Any:
    """1 / (constant + slope log), at most 0.5, also where it would be negative."""
    return 1 / xp.maximum(constant + slope * log, 2.0)


def shower_fraction(shape: ShowerShape, depth: Float[Any, "*n"]) -> Float[Any, "*n"]:
    """Share of the energy left above a depth (X0)."""
    xp = array_space(depth, shape.alpha)
    return _gamma_functions(xp).gammainc(shape.alpha, shape.beta * xp.maximum(depth, 0.0))


def shower_density(shape: ShowerShape, depth: Float[Any, "*n"]) -> Float[Any, "*n"]:
    """Share of the energy left per X0 at a positive depth (X0)."""
    xp = array_space(depth, shape.alpha)
    scaled = shape.beta * depth
    log = (shape.alpha - 1) * xp.log(scaled) - scaled - _gamma_functions(xp).gammaln(shape.alpha)
    return shape.beta * xp.exp(log)


class RadialShape(NamedTuple):
    """Radial profile: core share p of 2rR²/(r² + R²)² and a tail of the same form."""

    core: Float[Any, "*n"]  # R, Molière radii
    tail: Float[Any, "*n"]  # R, Molière radii
    share: Float[Any, "*n"]  # p


def radial_shape(
    material: Material,
    energy: Float[Any, "*n"],
    shape: ShowerShape,
    depth: Float[Any, "*n"],
    plates: Plates | None = None,
    tuning: Tuning = PUBLISHED,
) -> RadialShape:
    """Average radial profile at a depth (hep-ex/0001020).

    The coefficient 0.0412 is that of Geant4; the digit printed in the paper was not seen.

    Args:
        material: of the medium.
        energy: of the shower, GeV.
        shape: of the shower, from `shower_shape`.
        depth: X0 from the start of the shower.
        plates: of a sampling calorimeter; None: homogeneous.
        tuning: changes of the published numbers.
    """
    xp, z = array_space(energy, depth), material.z
    middle = shape.mean_alpha / (shape.mean_alpha - 1)
    # Ten mean depths on nothing is left, and the radius of the tail would overflow.
    tau = xp.minimum(depth * shape.beta / shape.alpha * middle, 10.0)
    log = xp.log(energy)
    core = 0.0251 + 0.00319 * log + (0.1162 - 0.000381 * z) * tau
    growth = xp.exp((0.3585 + 0.0412 * log) * (tau - 0.645))
    tail = (0.659 - 0.00309 * z) * (xp.exp(-2.59 * (tau - 0.645)) + growth)
    q = (0.401 + 0.00187 * z - tau) / (1.313 - 0.0686 * log)
    share = (2.632 - 0.00094 * z) * xp.exp(q - xp.exp(q))
    if plates is not None:
        contrast, fade = plates.contrast, xp.exp(-tau) / plates.frequency
        core = core - 0.0203 * contrast + 0.0397 * fade
        tail = tail - 0.14 * contrast - 0.495 * fade
        bump = xp.exp(-((tau - 1) ** 2)) / plates.frequency
        share = share + contrast * (0.348 - 0.642 * bump)
    # Radii of very soft showers would come out negative before their first X0.
    core, tail = xp.maximum(core, 0.005), xp.maximum(tail, 0.02)
    share = xp.minimum(xp.maximum(tuning.share * share, 0.0), 1.0)
    return RadialShape(tuning.radius * core, tuning.radius * tail, share)


def radial_fraction(shape: RadialShape, radius: Float[Any, "*n"]) -> Float[Any, "*n"]:
    """Share of the energy inside a radius (Molière radii)."""
    square = radius * radius
    core, tail = square / (square + shape.core**2), square / (square + shape.tail**2)
    return shape.share * core + (1 - shape.share) * tail


def radius(
    shape: RadialShape, uniforms: tuple[Float[Any, "*n"], Float[Any, "*n"]]
) -> Float[Any, "*n"]:
    """Radius of a random spot of energy, Molière radii.

    Args:
        shape: from `radial_shape`.
        uniforms: deviates from [0, 1): one chooses core or tail, one the place.
    """
    xp = array_space(shape.core, *uniforms)
    scale = xp.where(uniforms[0] < shape.share, shape.core, shape.tail)
    return scale * (uniforms[1] / (1 - uniforms[1])) ** 0.5


def disc_fraction(
    scale: Float[Any, "*n"], radius: Float[Any, "*n"], offset: Float[Any, "*n"]
) -> Float[Any, "*n"]:
    """Share of one radial component inside a disc whose middle lies off the shower axis.

    2rR²/(r² + R²)² is what a uniform sphere gives when it is projected from its pole, and a disc
    in the plane is a cap of the sphere: its area gives the share. Without offset r²/(r² + R²).

    Args:
        scale: R of the component.
        radius: of the disc, in the unit of R.
        offset: of its middle from the axis, in the unit of R.
    """
    square, far = radius * radius, scale * scale + offset * offset
    root = ((square + far) ** 2 - 4 * square * offset * offset) ** 0.5
    return (1 + (square - far) / root) / 2


def quadrant_fraction(
    scale: Float[Any, "*n"], x: Float[Any, "*n"], y: Float[Any, "*n"]
) -> Float[Any, "*n"]:
    """Share of one radial component between the axes and the corner (x, y), signed.

    The integral of R²/(pi (x² + y² + R²)²) over a rectangle is the sum of this over its corners,
    with alternating signs.
    """
    xp, square = array_space(scale, x, y), scale * scale
    wide, high = (x * x + square) ** 0.5, (y * y + square) ** 0.5
    return (x / wide * xp.arctan(y / wide) + y / high * xp.arctan(x / high)) / (2 * math.pi)
