"""Electromagnetic showers in homogeneous matter: GFlash profiles of depth and radius.

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

from physml.matter import Material, array_space


def _gamma_functions(xp: Any) -> Any:
    return importlib.import_module("scipy.special" if xp is np else "jax.scipy.special")


def conversion_depth(uniform: Float[Any, "*n"]) -> Float[Any, "*n"]:
    """Depth at which a photon makes a pair, X0: exponential of mean 9/7 (PDG, high energies).

    Args:
        uniform: deviates from (0, 1].
    """
    return -9 / 7 * array_space(uniform).log(uniform)


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
) -> ShowerShape:
    """Longitudinal profile of electron showers in a homogeneous material (hep-ex/0001020).

    Widths are at most 0.5 and alpha at least 1.1. Photons: start at `conversion_depth`.

    Args:
        material: of the medium.
        energy: GeV; see `LOWEST_LOG` for low ones.
        normals: standard normal deviates; zeros give the average shower.
    """
    xp = array_space(energy, *normals)
    y = energy / material.critical_energy
    log = xp.maximum(xp.log(y), LOWEST_LOG)
    shrink = xp.minimum(xp.log1p(y) / math.log1p(math.exp(LOWEST_LOG)), 1.0)
    mean_t, mean_a = log - 0.812, 0.81 + (0.458 + 2.26 / material.z) * log
    width_t = xp.minimum(1 / (-1.4 + 1.26 * log), 0.5)
    width_a = xp.minimum(1 / (-0.58 + 0.86 * log), 0.5)
    rho = 0.705 - 0.023 * log
    plus, minus = ((1 + rho) / 2) ** 0.5 * normals[0], ((1 - rho) / 2) ** 0.5 * normals[1]
    top = mean_t * xp.exp(width_t * (plus + minus)) * shrink
    alpha = xp.maximum(mean_a * xp.exp(width_a * (plus - minus)), 1.1)
    return ShowerShape(alpha, (alpha - 1) / top, mean_a)


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
) -> RadialShape:
    """Average radial profile at a depth in a homogeneous material (hep-ex/0001020).

    The coefficient 0.0412 is that of Geant4; the digit printed in the paper was not seen.

    Args:
        material: of the medium.
        energy: of the shower, GeV.
        shape: of the shower, from `shower_shape`.
        depth: X0 from the start of the shower.
    """
    xp, z = array_space(energy, depth), material.z
    middle = shape.mean_alpha / (shape.mean_alpha - 1)
    tau = depth * shape.beta / shape.alpha * middle
    log = xp.log(energy)
    core = 0.0251 + 0.00319 * log + (0.1162 - 0.000381 * z) * tau
    growth = xp.exp((0.3585 + 0.0412 * log) * (tau - 0.645))
    tail = (0.659 - 0.00309 * z) * (xp.exp(-2.59 * (tau - 0.645)) + growth)
    q = (0.401 + 0.00187 * z - tau) / (1.313 - 0.0686 * log)
    share = (2.632 - 0.00094 * z) * xp.exp(q - xp.exp(q))
    # The core of very soft showers would come out negative before their first X0.
    return RadialShape(xp.maximum(core, 0.005), tail, xp.minimum(xp.maximum(share, 0.0), 1.0))


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
