"""Classifiers of two-view pixel maps: siamese GoogLeNet, MobileNetV2 and a sparse-patch transformer.

All take brightness 0 to 255 as it is stored (uint8, or float for maps that were changed), hold
float32 weights, compute activations in `dtype`, and return an `Output` in float32. They keep no
running statistics. With `train` they need a dropout key: apply(..., rngs={"dropout": key}).
Shapes: n events, 2 views, planes, cells.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from physml.nets import MLP, TransformerBlock

INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "merged": (256, 160, 320, 32, 128, 128),
}
"""Channels 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection: Szegedy et al., arXiv 1409.4842,
table 1; "merged" is its 5a. The NOvA paper (arXiv 1604.01444) does not print its own."""

PLACES = (2, 25, 20)
"""Views, patches along the planes, patches along the cells, of 4 x 4 pixels each."""


class Output(NamedTuple):
    """What a classifier says about n events."""

    logits: Float[Array, "n classes"]
    embedding: Float[Array, "n d"]  # input of the last layer, without dropout


def brightness(pixels: Num[Array, "*b"], dtype: Any) -> Float[Array, "*b"]:
    """Map 0..255 onto 0..1 as (sqrt(1 + v) - 1) / 15.

    The square root makes the noise of counted photons the same at every brightness, and lifts
    faint hits; the 1 keeps its slope finite on blank pixels.
    """
    return ((jnp.sqrt(1.0 + pixels.astype(jnp.float32)) - 1.0) / 15.0).astype(dtype)


def conv(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolve (n, h, w, c) with a (k, k, c, out) kernel, k // 2 zeros on every side."""
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _thirds(x: Array, axis: int, stride: int) -> list[Array]:
    """The three neighbours that each window of 3 sees along an axis."""
    last = -(-(x.shape[axis] - 2) // stride) * stride - stride + 1
    return [jax.lax.slice_in_dim(x, i, i + last, stride, axis) for i in range(3)]


def max_pool(x: Float[Array, "n h w c"], stride: int) -> Float[Array, "n h2 w2 c"]:
    """Largest value of 3 x 3 windows, padded to ceil(h / stride) rows, of values >= 0.

    Written with shifted maxima: XLA's own gradient of a pooling is several times slower on a CPU.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        missing = (-(-size // stride) - 1) * stride + 3 - size
        pads = [(0, 0)] * 4
        pads[axis] = (missing // 2, missing - missing // 2)
        a, b, c = _thirds(jnp.pad(x, pads), axis, stride)
        x = jnp.maximum(jnp.maximum(a, b), c)
    return x


def local_response_norm(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """Divide by (1 + 1e-4 / 5 * sum of squares of 5 neighbouring channels)^0.75.

    Krizhevsky et al. 2012, section 3.3, with the constants of GoogLeNet's published settings.
    """
    window = (1,) * (x.ndim - 1) + (5,)
    squares = x.astype(jnp.float32) ** 2
    total = jax.lax.reduce_window(squares, 0.0, jax.lax.add, window, (1,) * x.ndim, "SAME")
    root = jax.lax.rsqrt(1.0 + 2e-5 * total)
    return (x * root * jnp.sqrt(root)).astype(x.dtype)


class Conv(nn.Module):
    """Convolution with bias and ReLU, k // 2 zeros on every side."""

    features: int
    size: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 f"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        if self.size == 1:
            return nn.relu(x @ kernel[0, 0] + bias)
        return nn.relu(conv(x, kernel, self.stride) + bias)


class Inception(nn.Module):
    """Four ways side by side; the three 1x1 convolutions that read the input are one product."""

    channels: tuple[int, int, int, int, int, int]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w f"]:
        one, reduce3, three, reduce5, five, pool = self.channels
        joint = Conv(one + reduce3 + reduce5, 1, dtype=self.dtype, name="reduce")(x)
        narrow, to3, to5 = jnp.split(joint, (one, one + reduce3), axis=-1)
        ways = (
            narrow,
            Conv(three, 3, dtype=self.dtype, name="three")(to3),
            Conv(five, 5, dtype=self.dtype, name="five")(to5),
            Conv(pool, 1, dtype=self.dtype, name="pool")(max_pool(x, 1)),
        )
        return jnp.concatenate(ways, axis=-1)


class GoogLeNetBranch(nn.Module):
    """One view, from the stem to inception 4a: a quarter of a quarter of the planes and cells."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n planes cells 1"]) -> Float[Array, "n h w 528"]:
        x = Conv(64, 7, 2, self.dtype, name="stem")(x)
        x = local_response_norm(max_pool(x, 2))
        x = Conv(64, 1, dtype=self.dtype, name="narrow")(x)
        x = local_response_norm(Conv(192, 3, dtype=self.dtype, name="wide")(x))
        x = max_pool(x, 2)
        x = Inception(INCEPTION["3a"], self.dtype, name="3a")(x)
        x = max_pool(Inception(INCEPTION["3b"], self.dtype, name="3b")(x), 2)
        return Inception(INCEPTION["4a"], self.dtype, name="4a")(x)


def _head(module: nn.Module, features: Array, classes: int, rate: float, train: bool) -> Output:
    """Dropout and the last layer, in float32; to be called in a compact method."""
    features = features.astype(jnp.float32)
    kept = nn.Dropout(rate, deterministic=not train, parent=module)(features)
    return Output(nn.Dense(classes, name="logits", parent=module)(kept), features)


class GoogLeNet(nn.Module):
    """The network of Aurisano et al., arXiv 1604.01444: a GoogLeNet branch per view, one merged end.

    337 million multiply-adds and 3.25 million weights for (2, 100, 80) maps and 5 classes.
    """

    classes: int
    dropout: float = 0.4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Num[Array, "n 2 planes cells"], train: bool) -> Output:
        x = brightness(maps, self.dtype)[..., None]
        views = [GoogLeNetBranch(self.dtype, name=f"view{v}")(x[:, v]) for v in range(2)]
        x = jnp.concatenate(views, axis=-1)
        x = Inception(INCEPTION["merged"], self.dtype, name="merged")(x)
        pooled = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return _head(self, pooled, self.classes, self.dropout, train)
