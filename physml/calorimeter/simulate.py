"""Maker of electron and photon showers: GFlash profiles, voxel by voxel. It is not Geant4.

A parametrised maker (Grindhammer and Peters, hep-ex/0001020): no particle is followed. Each shower
draws its depth profile, its axis and its width; the profiles are integrated over the voxels; and
each voxel draws a number of spots of exponential energies. Tuned for plates of tungsten and
silicon, and of lead and argon, against Geant4 electrons of 1 to 100 GeV at normal incidence, see
`TUNED` and `data_scripts/shower_tuning.py`; elsewhere it extrapolates. Left out: hadrons, noise,
slanted incidence, magnetic fields, and what the stack does not say (steel, gaps, electronics).
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32
from numpy.typing import ArrayLike

from physml import matter, showers
from physml.calorimeter.events import Showers
from physml.calorimeter.geometry import Geometry, Layer, check
from physml.calorimeter.spots import spot_sums
from physml.errors import ConfigError, DataError

MATERIALS = {
    "W": matter.TUNGSTEN, "Pb": matter.LEAD, "Fe": matter.IRON,
    "Si": matter.SILICON, "Ar": matter.LIQUID_ARGON,
}  # fmt: skip

VALID = (100.0, 1e7)
"""MeV: outside, `simulate` warns. Below, a shower is a handful of particles; above, the formulas
were never compared. Against Geant4 they were compared from 1 to 100 GeV."""

STEP = 1.0  # X0: thicker layers are integrated in steps
BLOCK = 1 << 19  # voxels worked on at once
TERMS = 120  # of the series of the incomplete gamma function
ROWS = 1024  # showers worked on at once, at most


class Tuning(NamedTuple):
    """What the data, not the papers, decide; GFlash's part is `profile`."""

    profile: showers.Tuning = showers.PUBLISHED
    stochastic: float = 0.11  # sigma / E at 1 GeV where a part is read out: 2 / it² spots per GeV
    whole: float = 1000.0  # spots per GeV where all deposits are counted
    lateral: float = 0.0
    """Spread at 1 GeV, going as E^-0.4, of the axis in x and y (Molière radii) and of ln radius:
    few early particles steer a shower, more than its many late spots average out."""


TUNED = {
    "W": Tuning(
        showers.Tuning(0.066, -0.381, depth_width=0.595, exponent_width=0.322, radius=1.32),
        stochastic=0.13, lateral=0.0456,
    ),
    "Pb": Tuning(
        showers.Tuning(0.275, -0.013, 0.817, 0.584, radius=1.05, share=0.92),
        stochastic=0.075, whole=1160.0, lateral=0.0543,
    ),
}  # fmt: skip
"""By passive material: what `data_scripts/shower_tuning.py` found against the even showers of two
Geant4 11.4.0 samples, 138 in 1.4 mm tungsten + 0.3 mm silicon and 180 in 2 mm lead + 4 mm argon.
Against the odd ones all means of depth, width, radius and hits are within 3, 10, 10 and 15 %, but
for the mean depth in lead at 1 to 5 GeV, +3.7 % with an error of 2.4 %."""


class _Group(NamedTuple):
    """Successive layers with the same voxels and as many steps in depth; hashable."""

    polar: bool
    slow: tuple[float, ...]
    fast: tuple[float, ...]
    fronts: tuple[tuple[float, ...], ...]  # of each layer: edges of its steps, X0

    @property
    def steps(self) -> int:
        """In all its layers."""
        return sum(len(edges) - 1 for edges in self.fronts)


class _Plan(NamedTuple):
    """What the shares need beside keys and energies; hashable, so that it is compiled once."""

    material: matter.Material
    plates: showers.Plates | None
    moliere: float  # mm
    groups: tuple[_Group, ...]


def simulate(
    key: int | tuple[int, ...], energies: ArrayLike, geometry: Geometry,
    particle: str | None = None, tuning: Tuning | None = None,
) -> Showers:  # fmt: skip
    """Showers of electrons or photons that hit the first layer at a right angle in its middle.

    Shower i depends on the key, its energy and i only, so that the first ones are the same however
    many follow. Where the stack has a sampling fraction, each layer's energy fluctuates with the
    stochastic term; where all deposits are counted (none), the sum over voxels is exactly what
    the profile leaves inside them. Last, voxels below the threshold of the geometry become 0.
    Memory: the result and less than 200 MB, for rings 40 MB.

    Args:
        key: seed, or several.
        energies: (n,) kinetic, MeV.
        geometry: with a stack and the depths of all layers.
        particle: "electron" or "photon"; by default that of the geometry.
        tuning: by default of `TUNED` for the passive material, else GFlash as published.

    Raises:
        ConfigError: pions or other particles; a geometry without stack or depths, or with plates
            of unknown material; a key or tuning that is no number.
        DataError: energies that are no list of positive numbers, or above 1e11 MeV.

    Warns:
        UserWarning: energies outside `VALID`.
    """
    energy = _energies(energies)
    particle = particle or geometry.particle
    plan, photon = _plan(geometry, particle), particle == "photon"
    tuning = _tuning(geometry, tuning)
    root = _root(key)
    rows = min(max(BLOCK // geometry.size, 1), ROWS)
    deposits = np.zeros((len(energy), geometry.size), np.float32)
    for block, start in enumerate(range(0, len(energy), rows)):
        part = energy[start : start + rows]
        full = np.concatenate([part, np.full(rows - len(part), 1e3)]).astype(np.float32)
        found = _block(plan, tuning, geometry, photon, jax.random.fold_in(root, block), full / 1e3)
        deposits[start : start + rows] = np.asarray(found)[: len(part)]
    return Showers(energy, deposits)


def _energies(energies: ArrayLike) -> np.ndarray:
    """Checked energies, MeV."""
    remedy = "give a list of positive energies in MeV, none above 1e11"
    try:
        energy = np.asarray(energies, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError("energies", "are no list of numbers", remedy) from error
    if energy.ndim != 1:
        raise DataError("energies", f"have shape {energy.shape}", remedy)
    bad = np.flatnonzero(~((energy > 0) & (energy <= 1e11)))
    if len(bad):
        raise DataError("energies", f"row {bad[0]} is {energy[bad[0]]:g}", remedy)
    outside = int(np.count_nonzero((energy < VALID[0]) | (energy > VALID[1])))
    if outside:
        text = f"energies: {outside} of {len(energy)} are outside {VALID[0]:g} to {VALID[1]:g} MeV"
        warnings.warn(f"{text}, where the profiles were never checked", stacklevel=3)
    return energy


def _root(key: int | tuple[int, ...]) -> Array:
    """Key of the seeds; always of the same kind, so that the bits do not hang on settings."""
    root = jax.random.key(0, impl="threefry2x32")
    for seed in key if isinstance(key, tuple) else (key,):
        if type(seed) is not int or not 0 <= seed < 1 << 64:
            raise ConfigError("key", f"holds {seed!r}", "give whole numbers from 0 to 2**64")
        for part in (seed >> 32, seed & 0xFFFFFFFF):
            root = jax.random.fold_in(root, np.uint32(part))
    return root


def _plan(geometry: Geometry, particle: str) -> _Plan:
    """Everything that is decided before the work begins."""
    check(geometry)
    if particle not in ("electron", "photon"):
        what = f"{particle!r} is not covered, hadrons are not"
        raise ConfigError("particle", what, "choose electron or photon")
    stack, depths = geometry.stack, [layer.depth for layer in geometry.layers]
    if stack is None or None in depths:
        what = "does not say what it is made of or where its layers stand"
        raise ConfigError("geometry", what, "give a stack, and a depth in X0 to each layer")
    for symbol in (stack.passive, stack.active):
        if symbol not in MATERIALS:
            known = ", ".join(MATERIALS)
            raise ConfigError("geometry.stack", f"{symbol} is no known material", f"use {known}")
    active = MATERIALS[stack.active]
    medium, plates = active, None
    if stack.passive_mm > 0:
        passive = MATERIALS[stack.passive], stack.passive_mm
        medium, plates = showers.plates(passive, (active, stack.active_mm))
    return _Plan(
        medium, plates, 10 * medium.moliere_radius / medium.density,
        _grouped(geometry.layers),
    )  # fmt: skip


def _tuning(geometry: Geometry, tuning: Tuning | None) -> Tuning:
    """Checked tuning, or that of the passive material."""
    if tuning is None:
        assert geometry.stack is not None  # as `_plan` has checked
        return TUNED.get(geometry.stack.passive, Tuning())
    for name, number in {**tuning.profile._asdict(), **tuning._asdict()}.items():
        least = {"depth": -1.0, "exponent": -1.0} | dict.fromkeys(
            ("lateral", "depth_width", "exponent_width"), 0.0
        )
        if name != "profile" and not least.get(name, 1e-3) <= number < math.inf:
            what = f"is {number}"
            raise ConfigError(f"tuning.{name}", what, f"give {least.get(name, 1e-3):g} or more")
    return tuning


def _grouped(layers: tuple[Layer, ...]) -> tuple[_Group, ...]:
    """Layers with the edges of their steps in depth, like ones together."""
    groups: list[_Group] = []
    for layer in layers:
        assert layer.depth is not None  # as `_plan` has checked
        front, back = layer.depth
        count = max(math.ceil((back - front) / STEP - 1e-6), 1)
        edges = tuple(np.linspace(front, back, count + 1).round(9).tolist())
        new = _Group(layer.polar, tuple(layer.slow.tolist()), tuple(layer.fast.tolist()), (edges,))
        last = groups[-1] if groups else None
        if last and last[:3] == new[:3] and len(last.fronts[0]) == count + 1:
            groups[-1] = last._replace(fronts=(*last.fronts, edges))
        else:
            groups.append(new)
    return tuple(groups)


def _block(
    plan: _Plan, tuning: Tuning, geometry: Geometry, photon: bool, key: Array,
    energy: Float32[np.ndarray, "b"],
) -> Float32[Array, "b voxels"]:  # fmt: skip
    """Deposits (MeV) of a block of showers; energies GeV."""
    assert geometry.stack is not None  # as `_plan` has checked
    conserving = geometry.stack.sampling_fraction is None
    shower_key, spot_key = jax.random.split(key)
    # Three programs: in one, XLA would work out the shares anew for each use of them on a CPU, and
    # the deviates would be compiled anew for each geometry.
    normals, uniform = _deviates(len(energy), shower_key)
    share = _shares(plan, tuning, normals, jnp.where(photon, uniform, 1.0), energy)
    per_gev = tuning.whole if conserving else 2 / tuning.stochastic**2
    found: Array = _deposits(conserving, geometry.threshold, per_gev, spot_key, energy, share)
    return found


@functools.partial(jax.jit, static_argnums=0)
def _deviates(rows: int, key: Array) -> tuple[Float32[Array, "5 b"], Float32[Array, "b"]]:
    """Normal deviates of each shower, and one from (0, 1]."""
    normals = jax.random.normal(key, (5, rows), jnp.float32)
    return normals, 1 - jax.random.uniform(jax.random.fold_in(key, 1), (rows,), jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def _deposits(
    conserving: bool, threshold: float, per_gev: float, key: Array, energy: Float32[Array, "b"],
    share: Float32[Array, "b voxels"],
) -> Float32[Array, "b voxels"]:  # fmt: skip
    """Deposits (MeV) of showers with known shares of their energy (GeV)."""
    spots = spot_sums(key, share * (per_gev * energy[:, None]))
    scale: Any = 1e3 / per_gev
    if conserving:
        total = spots.sum(axis=1)
        kept = 1e3 * energy * share.sum(axis=1)
        scale = jnp.where(total > 0, kept / jnp.maximum(total, 1e-30), 0.0)[:, None]
    deposits = spots * scale
    return jnp.where(deposits < threshold, 0.0, deposits)


@functools.partial(jax.jit, static_argnums=0)
def _shares(
    plan: _Plan, tuning: Tuning, normals: Float32[Array, "5 b"], uniform: Float32[Array, "b"],
    energy: Float32[Array, "b"],
) -> Float32[Array, "b voxels"]:  # fmt: skip
    """Share of the energy that is expected in each voxel; `uniform` 1: no way to conversion."""
    start = showers.conversion_depth(uniform)
    medium, plates = plan.material, plan.plates
    pair = normals[0], normals[1]
    shape = showers.shower_shape(medium, energy, pair, plates, tuning.profile)
    shape = showers.ShowerShape(*(part[:, None] for part in shape))
    amount, depth = _steps(plan, shape, start)
    radial = showers.radial_shape(medium, energy[:, None], shape, depth, plates, tuning.profile)
    lateral = jnp.minimum(tuning.lateral * energy**-0.4, 0.5)
    middle = plan.moliere * lateral * normals[2:4]  # (2, b) mm
    scale = (plan.moliere * jnp.exp(lateral * (normals[4] - lateral / 2)))[:, None]
    # Core and tail, (2, b, steps).
    shares = jnp.stack([amount * radial.share, amount * (1 - radial.share)])
    radii = jnp.stack([scale * radial.core, scale * radial.tail])
    parts, first = [], 0
    for group in plan.groups:
        within = slice(first, first := first + group.steps)
        cells = jax.vmap(_ring_shares if group.polar else _cell_shares, (None, None, 0, 0, None))
        axes = jnp.asarray(group.slow, jnp.float32), jnp.asarray(group.fast, jnp.float32)
        form = (2, len(energy), len(group.fronts), -1)  # component, shower, layer, step
        both = cells(*axes, shares[..., within].reshape(form), radii[..., within].reshape(form),
                     middle)  # fmt: skip
        parts.append(both.sum(axis=0).reshape(len(energy), -1))
    return jnp.maximum(jnp.concatenate(parts, axis=1), 0.0)


def _steps(
    plan: _Plan, shape: showers.ShowerShape, start: Float32[Array, "b"]
) -> tuple[Float32[Array, "b steps"], Float32[Array, "b steps"]]:
    """Share of the energy in each step in depth, and its middle (X0) behind the start."""
    layers = [edges for group in plan.groups for edges in group.fronts]
    front = np.concatenate([edges[:-1] for edges in layers])
    back = np.concatenate([edges[1:] for edges in layers])
    edges = np.unique([front, back])
    inside = _gamma_share(shape.alpha, shape.beta * (edges.astype(np.float32) - start[:, None]))
    amount = inside[:, np.searchsorted(edges, back)] - inside[:, np.searchsorted(edges, front)]
    middle = ((front + back) / 2).astype(np.float32)
    # Rounding makes differences of what lies behind the shower negative.
    return jnp.maximum(amount, 0.0), jnp.maximum(middle - start[:, None], 1e-3)


def _gamma_share(alpha: Float32[Array, "b 1"], x: Float32[Array, "b k"]) -> Float32[Array, "b k"]:
    """Regularised lower incomplete gamma function by its power series, 0 for negative x.

    Five times faster to run than that of jax and two seconds faster to compile; good to 1e-5. The
    `TERMS` reach x = 50, where nothing is left of a shower.
    """
    x = jnp.clip(x, 1e-20, 50.0)

    def add(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        term = state[0] * x / (alpha + k)
        return term, state[1] + term

    _, total = jax.lax.fori_loop(1, TERMS, add, (jnp.ones_like(x), jnp.ones_like(x)))
    factor = jnp.exp(alpha * jnp.log(x) - x - jax.scipy.special.gammaln(alpha + 1))
    return jnp.minimum(total * factor, 1.0)


def _ring_shares(
    slow: Float32[Array, "a+1"], fast: Float32[Array, "r+1"], amount: Float32[Array, "b l s"],
    radius: Float32[Array, "b l s"], middle: Float32[Array, "2 b"],
) -> Float32[Array, "b l a r"]:  # fmt: skip
    """Shares of one radial component in rings and sectors, from its amount and radius by step.

    The rings are exact. The sectors of a ring share as the component does at the middle of the
    ring and of each sector, with its mean radius in the layer.
    """
    east, north = middle[0][:, None, None], middle[1][:, None, None]
    square = east * east + north * north
    discs = showers.disc_fraction(radius[..., None], fast, jnp.sqrt(square)[..., None])
    rings = jnp.diff((amount[..., None] * discs).sum(axis=2), axis=2)[:, :, None, :]
    if len(slow) == 2:
        return rings
    mean = (amount * radius).sum(axis=2) / jnp.maximum(amount.sum(axis=2), 1e-30)
    alpha, r = (slow[1:] + slow[:-1]) / 2, (fast[1:] + fast[:-1]) / 2
    along = jnp.cos(alpha) * east[..., 0] + jnp.sin(alpha) * north[..., 0]  # (b, a)
    far = r * r + (mean * mean)[..., None] + square + 1e-6  # (b, l, r)
    weight = 1 / (far[:, :, None, :] - 2 * r * along[:, None, :, None]) ** 2
    return rings * weight / weight.sum(axis=2, keepdims=True)


def _cell_shares(
    slow: Float32[Array, "x+1"], fast: Float32[Array, "y+1"], amount: Float32[Array, "b l s"],
    radius: Float32[Array, "b l s"], middle: Float32[Array, "2 b"],
) -> Float32[Array, "b l x y"]:  # fmt: skip
    """Shares of one radial component in the cells of a plane, from its amount and radius by step.

    Exact; the first part of `middle` points along y, as the challenge's eta does.
    """
    x, y = slow - middle[1][:, None], fast - middle[0][:, None]
    corners = showers.quadrant_fraction(
        radius[..., None, None], x[:, None, None, :, None], y[:, None, None, None, :]
    )
    corners = (amount[..., None, None] * corners).sum(axis=2)
    return jnp.diff(jnp.diff(corners, axis=2), axis=3)
