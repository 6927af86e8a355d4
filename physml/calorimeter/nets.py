"""Networks of the calorimeter domain: generator, critic, and the classifier that judges them."""

# ruff: noqa: D102 (the docstring of a block says what its __call__ does)
from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from physml.nets import Dense

UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Weights even within 1/sqrt(inputs), as torch.nn.Linear begins (the biases begin at 0 here)."""


class Classifier(nn.Module):
    """Hidden layers of the given widths with leaky ReLU (slope 0.01), then one logit per row."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "b f"]) -> Float[Array, "b"]:
        for width in self.widths:
            x = nn.leaky_relu(Dense(width, init=UNIFORM)(x))
        logit: Array = Dense(1, init=UNIFORM)(x)
        return logit[:, 0]


class Critic(nn.Module):
    """Hidden layers of the given widths with leaky ReLU (slope 0.2), then one score per row."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "b f"]) -> Float[Array, "b"]:
        for width in self.widths:
            x = nn.leaky_relu(Dense(width)(x), 0.2)
        score: Array = Dense(1)(x)
        return score[:, 0]


class Body(nn.Module):
    """Hidden layers of the given widths with SiLU, then `outputs` numbers that begin small."""

    widths: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "b f"]) -> Float[Array, "b o"]:
        for width in self.widths:
            x = nn.silu(Dense(width)(x))
        found: Array = Dense(self.outputs, init=nn.initializers.normal(0.02))(x)
        return found


class Generator(nn.Module):
    """Energies of the layers from one head, then the voxels from another; both whitened.

    `energies` gives (b, 1 + layers): the response and the layers' logarithms; `voxels` gives
    (b, voxels) logarithms, each a + b n + c (n² - 1) of a normal deviate n of its own.
    """

    layers: int
    size: int  # voxels
    widths: tuple[int, ...] = (256, 256)
    head_widths: tuple[int, ...] = (128, 128)

    def setup(self) -> None:
        self.head = Body(self.head_widths, 1 + self.layers)
        self.body = Body(self.widths, 3 * self.size)

    def energies(
        self, latent: Float[Array, "b z"], condition: Float[Array, "b c"]
    ) -> Float[Array, "b 1+layers"]:
        found: Array = self.head(jnp.concatenate([latent, condition], axis=1))
        return found

    def voxels(
        self,
        latent: Float[Array, "b z"],
        noise: Float[Array, "b voxels"],
        condition: Float[Array, "b c"],
    ) -> Float[Array, "b voxels"]:
        found = self.body(jnp.concatenate([latent, condition], axis=1))
        middle, width, skew = jnp.split(found, 3, axis=1)
        value: Array = middle + (0.5 + width) * noise + skew * (noise * noise - 1)
        return value
