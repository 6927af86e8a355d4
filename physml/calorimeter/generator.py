"""From normal deviates to showers: what stands around the networks, in pure functions of arrays.

Everything is whitened by tables over the logarithm of the incident energy, so that the networks
see numbers of order 1 over all decades. With t the threshold of a voxel, L = ln(1 + e / t) of every
energy e; between the knots of a table, one for each doubling of the energy, lines are drawn. The
layers' energies come first; the voxels of a layer then share its energy exactly. Energies MeV.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from physml.calorimeter import geometry as geometries
from physml.calorimeter.events import Showers
from physml.calorimeter.geometry import NO_THRESHOLD, Geometry
from physml.errors import ConfigError

LATENT = 32  # normal deviates of a shower for the shape, beside one for each voxel
HEAD_LATENT = 16  # for the energies of the layers
SOFT = 0.25  # width in ln(e) over which the gradient of a gate is spread
LEAST_WIDTHS = (1e-4, 0.05, 0.1, 0.01)
"""Of the tables of `Scale`: what hardly ever differs from its mean would blow up."""
TINY = 1e-12
FAINT = 0.01  # thresholds: amount of a voxel whose logarithm is 0
FADE = 0.05  # below 0 the amount falls by 1/e over this
LARGEST = 30.0  # logarithm; the square of a sum of such energies is still a float32
BLOCK = 512  # showers made at a time: what they take stays in the cache of a core
ROWS = 4096  # read at a time for the tables


class Table(NamedTuple):
    """Mean and width of some quantities at each knot in energy."""

    mean: Float32[Array, "knots k"]
    width: Float32[Array, "knots k"]


class Scale(NamedTuple):
    """What whitens; fixed by the training showers, and part of a trained generator."""

    span: Float32[Array, "2"]  # ln of the smallest and largest incident energy, MeV
    response: Table  # sum of the deposits over the incident energy (k = 1)
    layers: Table  # L of the layers' energies
    voxels: Table  # L of the voxels, over showers that hit their layer
    shapes: Table  # see `shapes`


class Grid(NamedTuple):
    """What a geometry is to the networks; hashable arrays of it are made at trace time."""

    slices: tuple[slice, ...]
    threshold: float
    columns: Float32[np.ndarray, "voxels m"]  # times deposits: sums that give centres and widths
    size: int


def grid(geometry: Geometry) -> Grid:
    """Numbers of a geometry that the generator needs."""
    middle = geometries.centres(geometry)
    parts = geometries.slices(geometry)
    columns = []
    for layer, part in zip(geometry.layers, parts, strict=True):
        axes = [middle.r] if layer.polar and layer.n_alpha == 1 else [middle.eta, middle.phi]
        axes += [middle.r] if len(axes) == 2 else []
        extent = float(np.abs(layer.fast).max())
        for axis in axes:
            for power in (1, 2):
                column = np.zeros(geometry.size)
                column[part] = (axis[part] / extent) ** power
                columns.append(column)
    return Grid(
        tuple(parts), geometry.threshold or NO_THRESHOLD,
        np.stack(columns, axis=1).astype(np.float32), geometry.size,
    )  # fmt: skip


def knot_weights(scale: Scale, energy: Float[Array, "b"]) -> Float[Array, "b knots"]:
    """Weights of the knots at each energy: two neighbours share 1; beyond the ends, the last."""
    return _hats(scale.span, len(scale.voxels.mean), energy)


def _hats(span: Any, knots: int, energy: Any) -> Float[Array, "b knots"]:
    place = (jnp.log(energy) - span[0]) / (span[1] - span[0]) * (knots - 1)
    place = jnp.clip(place, 0.0, knots - 1.0)
    return jnp.maximum(1 - jnp.abs(place[:, None] - jnp.arange(knots)), 0.0)


# GPUs round the factors of a product to 10 bits unless told not to, too few for a mean.
_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def whiten(table: Table, weights: Float[Array, "b knots"], value: Any) -> Any:
    """(value - mean) / width at the energies of the weights."""
    return (value - _product(weights, table.mean)) / _product(weights, table.width)


def unwhiten(table: Table, weights: Float[Array, "b knots"], value: Any) -> Any:
    """The inverse of `whiten`."""
    return _product(weights, table.mean) + _product(weights, table.width) * value


def share(
    total: Float[Array, "b"], weights: Float[Array, "b v"], threshold: float
) -> tuple[Float[Array, "b v"], Float[Array, "b v"]]:
    """Parts of a total (MeV), none between 0 and the threshold, and which of them are not empty.

    Parts below the threshold are emptied and the others grow together to the total exactly; the
    largest takes it all where every part is below; a total below the threshold leaves nothing. The
    gradient sees gates that open over `SOFT` in the logarithm.
    """
    total = jnp.where(total >= threshold, total, 0.0)[:, None]
    weights = jnp.maximum(weights, TINY)
    part = total * weights / weights.sum(axis=1, keepdims=True)
    largest = part >= part.max(axis=1, keepdims=True)
    hard = ((part >= threshold) | largest) & (total > 0)
    gate = _gate(part, hard.astype(part.dtype), threshold)
    open_part = weights * gate
    return total * open_part / jnp.maximum(open_part.sum(axis=1, keepdims=True), TINY), gate


@jax.custom_jvp
def _gate(part: Any, hard: Any, threshold: float) -> Any:
    """Gates that are open or not, and whose gradient is that of soft ones, at no cost without."""
    return hard


@_gate.defjvp
def _soft_slope(primals: Any, tangents: Any) -> Any:
    part, hard, threshold = primals

    def soft(part: Any) -> Any:
        return jax.nn.sigmoid((jnp.log(jnp.maximum(part, TINY)) - jnp.log(threshold)) / SOFT)

    return hard, jax.jvp(soft, (part,), tangents[:1])[1]


def layer_energies(
    net: Any, params: Any, scale: Scale, geometry: Grid, latent: Any, energy: Any
) -> Float[Array, "b layers"]:
    """Energies of the layers (MeV) from normal deviates (b, HEAD_LATENT)."""
    weights = knot_weights(scale, energy)
    about = told(scale, geometry, energy)
    found = net.apply({"params": params}, latent, about, method="energies")
    response = jnp.maximum(unwhiten(scale.response, weights, found[:, :1])[:, 0], 0.0)
    logs = jnp.clip(unwhiten(scale.layers, weights, found[:, 1:]), 0.0, LARGEST)
    return share(response * energy, jnp.expm1(logs), geometry.threshold)[0]


def told(scale: Scale, geometry: Grid, energy: Any, layers: Any = None) -> Float[Array, "b c"]:
    """What the networks are told: the incident energy, and the layers' energies where given."""
    weights = knot_weights(scale, energy)
    place = (jnp.log(energy) - scale.span[0]) / (scale.span[1] - scale.span[0])
    parts = [2 * place[:, None] - 1, weights]
    if layers is not None:
        response = layers.sum(axis=1, keepdims=True) / energy[:, None]
        parts.append(whiten(scale.response, weights, response))
        parts.append(whiten(scale.layers, weights, jnp.log1p(layers / geometry.threshold)))
    return jnp.concatenate(parts, axis=1)


def voxels(
    net: Any, params: Any, scale: Scale, geometry: Grid, latent: Any, energy: Any, layers: Any
) -> tuple[Float[Array, "b v"], Float[Array, "b v"]]:
    """Deposits (MeV) whose sums are the layers' energies, and the gates of the voxels."""
    weights, about = knot_weights(scale, energy), told(scale, geometry, energy, layers)
    deep, noise = latent[:, :LATENT], latent[:, LATENT:]
    found = net.apply({"params": params}, deep, noise, about, method="voxels")
    logs = unwhiten(scale.voxels, weights, found)
    # What the network takes for empty keeps its order, for a layer's energy has to go somewhere.
    faint = FAINT * jnp.exp(jnp.minimum(logs, 0.0) / FADE)
    amount = jnp.expm1(jnp.clip(logs, 0.0, LARGEST)) + faint
    pairs = [
        share(layers[:, k], amount[:, part], geometry.threshold)
        for k, part in enumerate(geometry.slices)
    ]
    deposits, gates = (jnp.concatenate(parts, axis=1) for parts in zip(*pairs, strict=True))
    return deposits, gates


def shapes(
    geometry: Grid, deposits: Float[Array, "b v"], gates: Float[Array, "b v"]
) -> Float[Array, "b s"]:
    """Centres and widths along each axis of each layer, and the layers' numbers of hits (ln(1+n)).

    Lengths are in units of the layer's extent; a layer without energy has 0.
    """
    sums = _product(deposits, geometry.columns)
    found, column = [], 0
    for part in geometry.slices:
        total = deposits[:, part].sum(axis=1)
        used = int(np.any(geometry.columns[part] != 0, axis=0).sum())
        for k in range(column, column + used, 2):
            centre, square = (sums[:, j] / jnp.maximum(total, 1e-6) for j in (k, k + 1))
            found += [centre, jnp.sqrt(jnp.maximum(square - centre**2, 1e-8))]
        found.append(jnp.log1p(jnp.maximum(gates[:, part].sum(axis=1), 0.0)))
        column += used
    return jnp.stack(found, axis=1)


def seen(
    scale: Scale, geometry: Grid, energy: Any, layers: Any, deposits: Any, gates: Any
) -> Float[Array, "b f"]:
    """What the critic of showers sees: energies, voxels, centres, widths and hits, all whitened."""
    weights, about = knot_weights(scale, energy), told(scale, geometry, energy, layers)
    logs = whiten(scale.voxels, weights, jnp.log1p(deposits / geometry.threshold))
    form = whiten(scale.shapes, weights, shapes(geometry, deposits, gates))
    return jnp.concatenate([about, logs, form], axis=1)


def sums(geometry: Grid, deposits: Any) -> Float[Array, "b layers"]:
    """Energies of the layers of given showers."""
    return jnp.stack([deposits[:, part].sum(axis=1) for part in geometry.slices], axis=1)


def fit_scale(showers: Showers, geometry: Geometry) -> Scale:
    """Tables of a training set: weighted means around each knot, one for each doubling of energy.

    Raises:
        ConfigError: all showers have one energy.
    """
    energy = showers.incident_energy
    low, high = float(energy.min()), float(energy.max())
    if not low < high:
        remedy = "train on a range of energies"
        raise ConfigError("training showers", f"all have {low:g} MeV", remedy)
    knots = max(int(np.ceil(np.log2(high / low) - 1e-6)), 1) + 1
    span = np.array([np.log(low), np.log(high)], np.float32)
    made = grid(geometry)
    total: list[Any] = []

    @jax.jit
    def add(energy: Any, deposits: Any) -> list[Any]:
        weights = _hats(jnp.asarray(span), knots, energy)
        layers = sums(made, deposits)
        always = jnp.ones((len(energy), 1))
        hit = [jnp.repeat(layers[:, k, None] > 0, part.stop - part.start, axis=1)
               for k, part in enumerate(made.slices)]  # fmt: skip
        values = (
            (layers.sum(axis=1, keepdims=True) / energy[:, None], always),
            (jnp.log1p(layers / made.threshold), always),
            (jnp.log1p(deposits / made.threshold), jnp.concatenate(hit, axis=1)),
            (shapes(made, deposits, (deposits > 0).astype(jnp.float32)), always),
        )
        return [_product(weights.T, x**power * used) for x, used in values for power in (0, 1, 2)]

    for start in range(0, len(energy), ROWS):
        rows = slice(start, start + ROWS)
        found = add(energy[rows].astype(np.float32), showers.deposits[rows])
        found = [np.asarray(part, np.float64) for part in found]
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    tables = []
    for k, least in enumerate(LEAST_WIDTHS):
        count, first, second = total[3 * k : 3 * k + 3]
        mean = first / np.maximum(count, 1e-9)
        width = np.sqrt(np.maximum(second / np.maximum(count, 1e-9) - mean**2, least**2))
        tables.append(Table(*(jnp.asarray(x, jnp.float32) for x in (mean, width))))
    return Scale(jnp.asarray(span), *tables)


def latents(
    key: Any, count: int, geometry: Grid
) -> tuple[Float[Array, "b head"], Float[Array, "b latent+voxels"]]:
    """Normal deviates of `count` showers: for the energies, and for the voxels."""
    # In one call: for one shower the key costs more than the deviates.
    both = jax.random.normal(key, (count, HEAD_LATENT + LATENT + geometry.size))
    return both[:, :HEAD_LATENT], both[:, HEAD_LATENT:]


def from_latents(
    net: Any, params: Any, scale: Scale, geometry: Grid, head: Any, body: Any, energy: Any
) -> Float[Array, "b v"]:
    """Deposits (MeV) of showers of given energies from their `latents`; a pure function."""
    layers = layer_energies(net, params, scale, geometry, head, energy)
    return voxels(net, params, scale, geometry, body, energy, layers)[0]
