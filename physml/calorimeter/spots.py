"""Energy of a random number of random spots: the noise of sampling, voxel by voxel, in JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

FEW = 8.0
"""Mean numbers of spots up to here are drawn as such; the sums above come from one square."""

MOST = 26  # more than this many at a mean of `FEW`: chance 1e-7


def spot_sums(key: Array, mean: Float32[Array, "*n"]) -> Float32[Array, "*n"]:
    """Sums of N exponential deviates of mean 1, N Poisson with a mean of its own in each place.

    The sum has mean m and variance 2m. Up to a mean of `FEW` N is found by inversion of the
    cumulative Poisson distribution, and the sum of N deviates by the cube of Wilson and Hilferty
    (1931). Above, twice the sum, a noncentral chi-square without degrees of freedom, is the square
    of a normal deviate of such mean and width that mean and variance are exact, as Sankaran (1959)
    found it to be close to: his exponent is 1/2 here.

    Args:
        key: of the deviates.
        mean: expected number of spots, 0 or more.
    """
    count_key, size_key = jax.random.split(key)
    normal = jax.random.normal(size_key, mean.shape, jnp.float32)
    uniform = jax.random.uniform(count_key, mean.shape, jnp.float32)
    number = _number(uniform, jnp.minimum(mean, FEW))
    ninth = 1 / (9 * jnp.maximum(number, 1.0))
    few = number * jnp.maximum(1 - ninth + jnp.sqrt(ninth) * normal, 0.0) ** 3
    twice = 2 * jnp.maximum(mean, FEW)
    variance = 2 / (1 + jnp.sqrt(1 - 2 / twice))  # s² of 4 s² (twice - s²) + 2 s⁴ = 4 twice
    many = (jnp.sqrt(twice - variance) + jnp.sqrt(variance) * normal) ** 2 / 2
    return jnp.where(mean > FEW, many, few)


def _number(uniform: Float32[Array, "*n"], mean: Float32[Array, "*n"]) -> Float32[Array, "*n"]:
    """Poisson deviates of a mean up to `FEW`."""
    term = jnp.exp(-mean)
    total, number = term, jnp.zeros_like(mean)
    for k in range(1, MOST + 1):
        number += uniform >= total
        term = term * mean * (1 / k)
        total += term
    return number
