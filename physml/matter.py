"""Particles through matter: materials, energy loss, range and scattering; see also `showers`.

Pure formulas of NumPy or JAX arrays: the result is of the kind of the arrays given. Random
deviates are arguments; nothing here draws them. Energies, masses and momenta GeV, thickness and
lengths g/cm² (divide by the density for cm) except where radiation lengths (X0) are named.
Source where none is named: PDG, Review of Particle Physics, "Passage of particles through matter".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from physml.errors import ConfigError

ELECTRON_MASS = 0.51099895069e-3  # GeV, PDG 2026
LOSS = 0.307075e-3  # GeV cm²/mol: 4 pi N_A r_e² m_e c², PDG
FINE_STRUCTURE = 7.2973525643e-3  # CODATA 2022
SCATTERING = 13.6e-3  # GeV, PDG: Highland formula as fitted by Lynch and Dahl
MOLIERE_ENERGY = 21.2  # MeV, hep-ex/0001020

_ELEMENTS = {  # atomic number, g/mol (PDG)
    "H": (1, 1.008), "C": (6, 12.0107), "O": (8, 15.999), "Si": (14, 28.0855),
    "Cl": (17, 35.453), "Ar": (18, 39.948), "Ti": (22, 47.867), "Fe": (26, 55.845),
    "W": (74, 183.84), "Pb": (82, 207.2),
}  # fmt: skip
_TSAI = {1: (5.31, 6.144), 2: (4.79, 5.621), 3: (4.74, 5.805), 4: (4.71, 5.924)}


class DensityEffect(NamedTuple):
    """Parameters of `density_correction`, Sternheimer, Berger and Seltzer (1984)."""

    c_bar: float
    x0: float
    x1: float
    a: float
    k: float
    delta0: float = 0.0  # not zero for conductors


class Material(NamedTuple):
    """What the formulas need to know about a material."""

    density: float  # g/cm³
    z: float  # atomic number, mean by mass
    z_over_a: float  # mol/g
    excitation: float  # mean excitation energy I, eV
    effect: DensityEffect
    radiation_length: float  # g/cm²
    critical_energy: float  # GeV, as hep-ex/0001020 defines it
    moliere_radius: float  # g/cm²


def radiation_length(z: int, a: float) -> float:
    """Radiation length of an element, g/cm² (Tsai, as in the PDG review)."""
    light, inelastic = _TSAI.get(z, (math.log(184.15 * z ** (-1 / 3)), 0.0))
    inelastic = inelastic or math.log(1194 * z ** (-2 / 3))
    s = (FINE_STRUCTURE * z) ** 2
    coulomb = s * (1 / (1 + s) + 0.20206 - 0.0369 * s + 0.0083 * s**2 - 0.002 * s**3)
    return 716.408 * a / (z**2 * (light - coulomb) + z * inelastic)


def plasma_energy(density: float, z_over_a: float) -> float:
    """Plasma energy of the electrons of a material, eV (PDG)."""
    return 28.816 * math.sqrt(density * z_over_a)


def condensed_effect(density: float, z_over_a: float, excitation: float) -> DensityEffect:
    """Density effect of a liquid or solid without fitted parameters (Sternheimer-Peierls, 1971)."""
    c_bar = 1 + 2 * math.log(excitation / plasma_energy(density, z_over_a))
    x1, edge, shift = (2.0, 3.681, 1.0) if excitation < 100 else (3.0, 5.215, 1.5)
    x0 = 0.2 if c_bar <= edge else 0.326 * c_bar - shift
    a = (c_bar - 2 * math.log(10) * x0) / (x1 - x0) ** 3
    return DensityEffect(c_bar, x0, x1, a, 3.0)


def compound(
    density: float,
    fractions: Mapping[str, float],
    excitation: float,
    effect: DensityEffect | None = None,
) -> Material:
    """Material of elements.

    Args:
        density: g/cm³.
        fractions: share of the mass, or any number proportional to it, of each element by symbol.
        excitation: mean excitation energy, eV.
        effect: fitted parameters; by default `condensed_effect`.

    Raises:
        ConfigError: an element is not in the table, or a number is not positive.
    """
    unknown = sorted(set(fractions) - set(_ELEMENTS))
    if unknown:
        known = ", ".join(_ELEMENTS)
        raise ConfigError("fractions", f"{unknown[0]} is not in the table", f"use {known}")
    parts = []
    for symbol, share in fractions.items():
        z, a = _ELEMENTS[symbol]
        x0 = radiation_length(z, a)
        critical = 2.66e-3 * (x0 * z / a) ** 1.1  # GeV, hep-ex/0001020
        moliere = MOLIERE_ENERGY * 1e-3 * x0 / critical
        none = DensityEffect(0.0, 0.0, 0.0, 0.0, 0.0)
        parts.append((share, Material(density, z, z / a, excitation, none, x0, critical, moliere)))
    return mixture(density, parts, effect)


def mixture(
    density: float,
    parts: Sequence[tuple[float, Material]],
    effect: DensityEffect | None = None,
) -> Material:
    """Fine mixture of materials: Bragg additivity, as the PDG review and hep-ex/0001020 give it.

    Args:
        density: of the mixture, g/cm³.
        parts: (share of the mass, or any number proportional to it; material).
        effect: fitted parameters; by default `condensed_effect`.

    Raises:
        ConfigError: the density or a share is not positive.
    """
    shares = [share for share, _ in parts]
    if not parts or not all(math.isfinite(n) and n > 0 for n in (density, *shares)):
        raise ConfigError("mixture", "a density or share is not positive", "give positive numbers")
    weighted = [(share / sum(shares), part) for share, part in parts]
    z_over_a = sum(w * part.z_over_a for w, part in weighted)
    logs = sum(w * part.z_over_a * math.log(part.excitation) for w, part in weighted)
    excitation = math.exp(logs / z_over_a)
    x0 = 1 / sum(w / part.radiation_length for w, part in weighted)
    return Material(
        density,
        sum(w * part.z for w, part in weighted),
        z_over_a,
        excitation,
        effect or condensed_effect(density, z_over_a, excitation),
        x0,
        x0 * sum(w * part.critical_energy / part.radiation_length for w, part in weighted),
        1 / sum(w / part.moliere_radius for w, part in weighted),
    )


# Excitation energies, densities and fitted density effects: PDG, Atomic and Nuclear Properties of
# Materials; tungsten, lead, PVC and titanium dioxide: NIST, as in Geant4 (G4NistMaterialBuilder).
IRON = compound(
    7.874, {"Fe": 1}, 286.0, DensityEffect(4.2911, -0.0012, 3.1531, 0.14680, 2.9632, 0.12)
)
SILICON = compound(
    2.329, {"Si": 1}, 173.0, DensityEffect(4.4355, 0.2015, 2.8716, 0.1492, 3.2546, 0.14)
)
GRAPHITE = compound(
    2.210, {"C": 1}, 78.0, DensityEffect(2.8926, -0.0090, 2.4817, 0.20762, 2.9532, 0.14)
)
LIQUID_ARGON = compound(1.396, {"Ar": 1}, 188.0, DensityEffect(5.2146, 0.2, 3.0, 0.19559, 3.0))
TUNGSTEN = compound(19.30, {"W": 1}, 727.0)
LEAD = compound(11.35, {"Pb": 1}, 823.0)
POLYETHYLENE = compound(
    0.89,
    {"C": 0.856289, "H": 0.143711},
    57.4,
    DensityEffect(3.0563, 0.1489, 2.5296, 0.1211, 3.4292),
)
PVC = compound(1.3, {"H": 0.04838, "C": 0.38436, "Cl": 0.56726}, 108.2)
TITANIUM_DIOXIDE = compound(4.26, {"Ti": 0.599408, "O": 0.400592}, 179.5)
CELLS_OF_OIL = mixture(
    0.96, [(0.65, POLYETHYLENE), (0.35 * 0.85, PVC), (0.35 * 0.15, TITANIUM_DIOXIDE)]
)
"""Average of a NOvA-like detector: 65 % mineral oil (as polyethylene), 35 % PVC with 15 % TiO2.
The density is 14 kt over 15.6 x 15.6 x 59.8 m³."""


def array_space(*arrays: Any) -> Any:
    """NumPy or jax.numpy, whichever the arrays belong to."""
    spaces = [a.__array_namespace__() for a in arrays if hasattr(a, "__array_namespace__")]
    return next((space for space in spaces if space is not np), np)


def density_correction(material: Material, beta_gamma: Float[Any, "*n"]) -> Float[Any, "*n"]:
    """Density effect delta, which enters the Bethe formula as -delta/2."""
    xp, e = array_space(beta_gamma), material.effect
    x = xp.log10(beta_gamma)
    high = 2 * math.log(10) * x - e.c_bar
    middle = high + e.a * xp.maximum(e.x1 - x, 0.0) ** e.k
    low = e.delta0 * 10.0 ** (2 * (xp.minimum(x, e.x0) - e.x0))
    return xp.where(x >= e.x0, middle, low)


def _velocity(mass: Any, kinetic: Any) -> tuple[Any, Any]:
    """(beta gamma)² and beta²."""
    gamma = 1 + kinetic / mass
    square = gamma * gamma - 1
    return square, square / (gamma * gamma)


def _largest_transfer(mass: Any, square: Any) -> Any:
    """Largest kinetic energy that an electron can be given in one collision, GeV."""
    ratio = ELECTRON_MASS / mass
    return 2 * ELECTRON_MASS * square / (1 + 2 * (1 + square) ** 0.5 * ratio + ratio**2)


def bethe(
    material: Material, mass: Float[Any, "*n"], kinetic: Float[Any, "*n"]
) -> Float[Any, "*n"]:
    """Mean energy loss by ionisation of a particle of charge one, GeV cm²/g (PDG, Bethe formula).

    Good to a few per cent for beta gamma from 0.1 to 1000. No radiation: for muons in carbon that
    is 1 % at 20 GeV. No shell corrections. Not for electrons.
    """
    xp = array_space(mass, kinetic)
    square, beta2 = _velocity(mass, kinetic)
    excitation = material.excitation * 1e-9
    transfer = _largest_transfer(mass, square)
    logarithm = xp.log(2 * ELECTRON_MASS * square * transfer / excitation**2) / 2
    delta = density_correction(material, square**0.5)
    return LOSS * material.z_over_a / beta2 * (logarithm - beta2 - delta / 2)


def most_probable_loss(
    material: Material,
    mass: Float[Any, "*n"],
    kinetic: Float[Any, "*n"],
    thickness: Float[Any, "*n"],
) -> Float[Any, "*n"]:
    """Most probable energy loss in a layer, GeV (PDG, Landau-Vavilov-Bichsel, j = 0.2)."""
    xp = array_space(mass, kinetic, thickness)
    square, _ = _velocity(mass, kinetic)
    xi, _, beta2 = collisions(material, mass, kinetic, thickness)
    excitation = material.excitation * 1e-9
    logarithm = xp.log(2 * ELECTRON_MASS * square / excitation) + xp.log(xi / excitation)
    return xi * (logarithm + 0.2 - beta2 - density_correction(material, square**0.5))


def fluctuated_loss(
    mean: Float[Any, "*n"],
    xi: Float[Any, "*n"],
    transfer: Float[Any, "*n"],
    beta2: Float[Any, "*n"],
    normal: Float[Any, "*n"],
    uniforms: tuple[Float[Any, "*n"], Float[Any, "*n"]],
) -> Float[Any, "*n"]:
    """Random energy loss in a layer, close to Landau's, with the mean and mode of theory.

    Thin layers: soft collisions give a Moyal distribution of width xi around the most probable loss
    (-ln of a squared normal deviate follows it: mode 0, mean 1.2704), and there may be one hard
    collision of spectrum (1 - beta² W / transfer) / W² above W1. The W1 that keeps the mean is
    xi exp(1.4704), for the mean of Bethe and the most probable loss differ by
    xi (ln(transfer / xi) - beta² - 0.2). Where W1 exceeds the largest transfer (thick layers, slow
    particles) the loss is normal with the variance xi transfer (1 - beta²/2). Never negative.

    Args:
        mean: loss, GeV, such as `bethe` times the thickness.
        xi: GeV, see `collisions`.
        transfer: largest transfer, GeV, see `collisions`.
        beta2: square of the velocity.
        normal: standard normal deviates.
        uniforms: deviates from [0, 1): a hard collision and its energy; the spectrum.
    """
    xp = array_space(mean, xi, normal, *uniforms)
    moyal = -xp.log(normal * normal + 1e-30)  # a deviate of exactly zero is possible
    softest = xi * math.exp(0.2 + np.euler_gamma + math.log(2))
    chance = xi * (1 / softest - 1 / transfer)
    hit = uniforms[0] < chance
    hard = 1 / (1 / softest - xp.where(hit, uniforms[0], 0.0) / xi)
    hard = xp.where(hit & (uniforms[1] * transfer > beta2 * hard), hard, 0.0)
    thin = mean + xi * (moyal + 0.2 + beta2 - xp.log(transfer / xi)) + hard
    thick = mean + normal * (xi * transfer * (1 - beta2 / 2)) ** 0.5
    return xp.maximum(xp.where(chance > 0, thin, thick), 0.0)


def collisions(
    material: Material,
    mass: Float[Any, "*n"],
    kinetic: Float[Any, "*n"],
    thickness: Float[Any, "*n"],
) -> tuple[Float[Any, "*n"], Float[Any, "*n"], Float[Any, "*n"]]:
    """Return xi of a layer, largest energy given to an electron (both GeV), and beta² (PDG)."""
    square, beta2 = _velocity(mass, kinetic)
    xi = LOSS / 2 * material.z_over_a * thickness / beta2
    return xi, _largest_transfer(mass, square), beta2


def highland(
    thickness: Float[Any, "*n"], momentum: Float[Any, "*n"], beta: Float[Any, "*n"]
) -> Float[Any, "*n"]:
    """Width of the angle of multiple scattering projected on a plane, rad, charge one (PDG).

    Args:
        thickness: X0; stated good to 11 % from 1e-3 to 100.
        momentum: GeV.
        beta: velocity.
    """
    xp = array_space(thickness, momentum, beta)
    correction = 1 + 0.038 * xp.log(thickness / beta**2)
    return SCATTERING / (beta * momentum) * thickness**0.5 * correction


class RangeTable(NamedTuple):
    """Range against energy for one material and mass; energies rise."""

    kinetic: Float64[np.ndarray, "k"]  # GeV
    range: Float64[np.ndarray, "k"]  # g/cm², continuous slowing down
    straggling: Float64[np.ndarray, "k"]  # standard deviation of the range, g/cm²


def range_table(
    material: Material, mass: float, highest: float = 1e3, points: int = 500
) -> RangeTable:
    """Integrate 1 / `bethe` from beta gamma = 0.05, and the variance of the loss along the way.

    The variance of the loss is xi W (1 - beta²/2), W the largest transfer: the integral of energy²
    over the cross section of electrons hit by a particle of spin zero.

    Args:
        material: of the medium.
        mass: of the particle, GeV.
        highest: energy of the last row, GeV.
        points: rows, equally spaced in the logarithm of the energy.
    """
    lowest = mass * (math.sqrt(1 + 0.05**2) - 1)
    kinetic = np.geomspace(lowest, highest, points)
    loss = bethe(material, mass, kinetic)
    xi, transfer, beta2 = collisions(material, mass, kinetic, 1.0)
    spread = xi * transfer * (1 - beta2 / 2)
    # Below the first row: range of a loss that falls like 1/energy.
    length = kinetic[0] / loss[0] / 2 + _integral(1 / loss, kinetic)
    return RangeTable(kinetic, length, np.sqrt(_integral(spread / loss**3, kinetic)))


def _integral(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Integral from the first x to each, trapezoids in log x."""
    areas = np.diff(np.log(x)) * (values[1:] * x[1:] + values[:-1] * x[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(areas)])


def csda_range(table: RangeTable, kinetic: Float[Any, "*n"]) -> Float[Any, "*n"]:
    """Range at an energy, g/cm²; beyond the table, that of its nearest row."""
    xp = array_space(kinetic)
    x, y = xp.asarray(np.log(table.kinetic)), xp.asarray(np.log(table.range))
    tiny = float(table.kinetic[0])
    return xp.exp(xp.interp(xp.log(xp.maximum(kinetic, tiny)), x, y))


def residual_energy(
    table: RangeTable, kinetic: Float[Any, "*n"], path: Float[Any, "*n"]
) -> Float[Any, "*n"]:
    """Energy left after a path, GeV; zero where the particle has stopped.

    Args:
        table: of the material and particle.
        kinetic: energy before, GeV.
        path: g/cm².
    """
    xp = array_space(kinetic, path)
    left = csda_range(table, kinetic) - path
    x, y = xp.asarray(np.log(table.range)), xp.asarray(np.log(table.kinetic))
    energy = xp.exp(xp.interp(xp.log(xp.maximum(left, 1e-30)), x, y))
    return xp.where(left >= float(table.range[0]), energy, 0.0)
