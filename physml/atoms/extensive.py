"""Non-linear functions of each atom's descriptor, summed over atoms: extensive by construction.

A linear model on such sums stays extensive (two copies of a system give exactly twice the sum)
while it is no longer linear in the surroundings of one atom. Per-atom descriptors of a crystal are
strongly correlated, so they are whitened first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from physml.atoms.neighbors import pad_rows, padded_rows
from physml.errors import ConfigError, DataError
from physml.precision import float64

FLOOR = 1e-14  # of the largest variance: components below are rounding noise


class Whitening(NamedTuple):
    """Affine map to uncorrelated components of unit variance, the largest variance first.

    mean (p,); components (p, k) with k <= p: z = (descriptor - mean) @ components.
    """

    mean: Float[np.ndarray, " p"]
    components: Float[np.ndarray, "p k"]


class Cosines(NamedTuple):
    """Random Fourier features cos(z w + b): frequencies w (k, r) and phases b (r,).

    Rahimi and Recht, Advances in Neural Information Processing Systems 20 (2007).
    """

    frequencies: Float[np.ndarray, "k r"]
    phases: Float[np.ndarray, " r"]


def whiten(per_atom: Float[np.ndarray, "n p"]) -> Whitening:
    """Whitening of a pool of per-atom descriptors.

    Raises:
        DataError: fewer than two rows, or values that are not finite.
    """
    if len(per_atom) < 2 or not np.isfinite(per_atom).all():
        raise DataError("pool", "has fewer than two rows or is not finite", "give more atoms")
    mean = per_atom.mean(axis=0)
    centred = per_atom - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / len(per_atom))
    order = np.argsort(-variances)
    order = order[variances[order] > FLOOR * variances[order[0]]]
    # The sign of an eigenvector is arbitrary: make its largest entry positive.
    axes = axes[:, order]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return Whitening(mean, axes / np.sqrt(variances[order]))


def cosines(components: int, features: int, scale: float, seed: int) -> Cosines:
    """Draw random features of the leading whitened components.

    Args:
        components: leading components that enter, k.
        features: number of features, r.
        scale: standard deviation of the frequencies, per unit of a whitened component.
        seed: same seed, same features.

    Raises:
        ConfigError: a number is not positive.
    """
    for name, value in (("components", components), ("features", features), ("scale", scale)):
        if not value > 0:
            raise ConfigError(name, f"is {value}", "give a positive number")
    rng = np.random.default_rng(seed)
    frequencies = rng.normal(0.0, scale, (components, features))
    return Cosines(frequencies, rng.uniform(0.0, 2.0 * np.pi, features))


def _whitened(per_atom: np.ndarray, whitening: Whitening, components: int) -> np.ndarray:
    available = whitening.components.shape[1]
    if not 1 <= components <= available:
        what = f"is {components}, and {available} rise above rounding"
        raise ConfigError("components", what, f"give 1 to {available}")
    return np.asarray((per_atom - whitening.mean) @ whitening.components[:, :components])


def product_sums(
    per_atom: Float[np.ndarray, "n p"], whitening: Whitening, components: int
) -> Float[np.ndarray, " columns"]:
    """Sums over atoms of all whitened components, and of products of the leading ones.

    Returns:
        K + k (k + 1) / 2 columns: sum z_a for all K components, then sum z_a z_b, a <= b <= k.

    Raises:
        ConfigError: more components than the whitening holds.
    """
    z = _whitened(per_atom, whitening, whitening.components.shape[1])
    leading = _whitened(per_atom, whitening, components)
    return np.concatenate([z.sum(axis=0), (leading.T @ leading)[np.triu_indices(components)]])


def _cos(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """cos(x) to 1e-14 for moderate x: Taylor polynomial after removing whole turns.

    Multiplications and additions only, so the compiler vectorises it; the library cosine of XLA
    on CPU is computed one number at a time and took most of the time here.
    """
    turns = x / (2.0 * np.pi)
    square = (2.0 * np.pi * (turns - jnp.round(turns))) ** 2
    total = jnp.zeros_like(x)
    for k in range(14, -1, -1):
        total = total * square + (-1.0) ** k / math.factorial(2 * k)
    return total


@jax.jit
def _summed_cosines(
    z: Float[Array, "rows k"], mask: Bool[Array, " rows"], features: Cosines
) -> Float[Array, " r"]:
    return jnp.where(mask, 1.0, 0.0) @ _cos(z @ features.frequencies + features.phases)


@float64
def cosine_sums(
    per_atom: Float[np.ndarray, "n p"], whitening: Whitening, features: Cosines
) -> Float[np.ndarray, " r"]:
    """Sums over atoms of random cosines of the leading whitened components.

    Raises:
        ConfigError: more components than the whitening holds.
    """
    z = _whitened(per_atom, whitening, len(features.frequencies))
    rows = padded_rows(len(z))
    return np.asarray(_summed_cosines(pad_rows(z, rows), np.arange(rows) < len(z), features))
