"""Networks of the calorimeter domain: generators, critics, and the classifier that judges them."""

# ruff: noqa: D102 (the docstring of a block says what its __call__ does)
from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
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


Shapes = tuple[tuple[int, int], ...]
"""Rows and columns of each layer."""

LEAK = 0.3  # slope below 0, Keras's own, of CaloGAN's leaky ReLU


class CaloGANGenerator(nn.Module):
    """CaloGAN's generator (arXiv 1712.10321; its program, github hep-lbdl/CaloGAN): energies GeV.

    The latent vector times E / 100 GeV feeds one stack for each layer: dense, convolution,
    normalisation of the batch, two locally connected layers. From the second layer on each cell
    mixes its own value with that of the layer before, brought to the same cells.
    """

    shapes: Shapes

    @nn.compact
    def __call__(
        self, latent: Float[Array, "b z"], energy: Float[Array, "b"], train: bool
    ) -> Float[Array, "b voxels"]:
        seed = latent * (energy / 100)[:, None]
        images: list[Array] = []
        for rows, columns in self.shapes:
            image = self.image(seed, rows, columns, train)
            if images:
                image = self.mixed(image, resized(images[-1], rows, columns))
            images.append(image)
        parts = [nn.relu(image).reshape(len(latent), -1) for image in images]
        return jnp.concatenate(parts, axis=1)

    def image(self, x: Array, rows: int, columns: int, train: bool) -> Array:
        start = nn.initializers.he_uniform()
        x = Dense((rows + 2) * (columns + 2) * 36, init=nn.initializers.glorot_uniform())(x)
        x = x.reshape(-1, rows + 2, columns + 2, 36)
        x = nn.leaky_relu(nn.Conv(16, (2, 2), kernel_init=start)(x), LEAK)
        x = nn.BatchNorm(not train, momentum=0.99, epsilon=1e-3)(x)
        x = nn.ConvLocal(6, (2, 2), padding="VALID", kernel_init=start)(x)
        found: Array = nn.ConvLocal(
            1, (2, 2), padding="VALID", use_bias=False, kernel_init=nn.initializers.glorot_normal()
        )(nn.leaky_relu(x, LEAK))
        return found

    def mixed(self, own: Array, before: Array) -> Array:
        def bias(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
            return jnp.zeros(shape, dtype).at[..., -1].set(-10.0)

        both = jnp.concatenate([own, before], axis=-1)
        start = nn.initializers.glorot_uniform()
        weights = nn.ConvLocal(2, (3, 3), padding=1, kernel_init=start, bias_init=bias)(both)
        return (both * jax.nn.softmax(weights)).sum(axis=-1, keepdims=True)


def resized(
    image: Float[Array, "b r c k"], rows: int, columns: int
) -> Float[Array, "b rows columns k"]:
    """The image on other cells of the same area: means over what each new cell covers."""
    down, across = (_cover(a, b) for a, b in zip(image.shape[1:3], (rows, columns), strict=True))
    return jnp.einsum("brck,ri,cj->bijk", image, down, across)


def _cover(old: int, new: int) -> np.ndarray:
    """Share of each new cell that each old one covers."""
    first, last = np.arange(old)[:, None] / old, np.arange(1, old + 1)[:, None] / old
    begin, end = np.arange(new) / new, np.arange(1, new + 1) / new
    common = np.minimum(last, end) - np.maximum(first, begin)
    share: np.ndarray = np.maximum(common, 0) * new
    return share.astype(np.float32)


class MinibatchDiscrimination(nn.Module):
    """How near the other rows of the batch are (Salimans et al., arXiv 1606.03498), through tanh.

    For each of 10 features a product with a matrix gives 10 numbers; the feature of a row is the
    sum over all rows, itself included, of exp(-L1 distance of these numbers).
    """

    features: int = 10
    size: int = 10

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b f"]:
        shape = (self.features, x.shape[1], self.size)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features, self.size))
        places = jnp.einsum("bd,fds->bfs", x, kernel) + bias
        apart = jnp.abs(places[:, None] - places[None]).sum(axis=-1)
        return jnp.tanh(jnp.exp(-apart).sum(axis=1))


class CaloGANDiscriminator(nn.Module):
    """CaloGAN's discriminator (see `CaloGANGenerator`): one logit per shower, energies GeV.

    Each layer's image through a convolution and three locally connected layers; its share of
    cells hit; energies of the layers, their sum, and its distance from the incident energy with a
    flag where above 5 GeV. Features of images, shares and energies are also compared within the
    batch, whose statistics normalise at all times: show it real showers only, or made ones only.
    """

    shapes: Shapes

    @nn.compact
    def __call__(
        self, deposits: Float[Array, "b voxels"], energy: Float[Array, "b"]
    ) -> Float[Array, "b"]:
        features, sums, first = [], [], 0
        for rows, columns in self.shapes:
            part = deposits[:, first : first + rows * columns]
            first += rows * columns
            x = self.image(part.reshape(-1, rows, columns, 1))
            hit = (part > 0).mean(axis=1, keepdims=True, dtype=jnp.float32)
            features += [x, MinibatchDiscrimination()(x), hit, MinibatchDiscrimination()(hit)]
            sums.append(part.sum(axis=1))
        energies = jnp.stack(sums, axis=1)
        total = energies.sum(axis=1, keepdims=True)
        well = jnp.abs(total - energy[:, None])
        features += [energies / 10, total / 100, well, 10.0 * (well > 5)]
        features.append(MinibatchDiscrimination()(energies))
        logit: Array = Dense(1, init=nn.initializers.glorot_uniform())(
            jnp.concatenate(features, axis=1)
        )
        return logit[:, 0]

    def image(self, x: Array) -> Array:
        start = nn.initializers.glorot_uniform()
        x = nn.leaky_relu(nn.Conv(64, (2, 2), kernel_init=start)(x), LEAK)
        for width, kernel, stride in ((16, 3, 2), (8, 2, 1), (8, 2, 2)):
            local = nn.ConvLocal(width, (kernel, kernel), (1, stride), 1, kernel_init=start)
            x = nn.leaky_relu(local(x), LEAK)
            x = nn.BatchNorm(use_running_average=False, epsilon=1e-3)(x)
        return x.reshape(len(x), -1)
