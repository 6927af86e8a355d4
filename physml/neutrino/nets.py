"""Classifiers of two-view pixel maps: siamese GoogLeNet, MobileNetV2, sparse-patch transformer.

All take brightness 0 to 255 as it is stored (uint8, or float for maps that were changed), hold
float32 weights, compute activations in `dtype`, and return an `Output` in float32. They keep no
running statistics. With `train` they need a dropout key: apply(..., rngs={"dropout": key}).
Shapes: n events, 2 views, planes, cells.
"""

# ruff: noqa: D102 (the docstring of a block says what its __call__ does)
from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from physml.nets import MLP, Dense, TransformerBlock

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

MOBILE_VIEW = ((16, 1, 1, 1), (24, 6, 2, 2), (32, 6, 2, 3))
MOBILE_MERGED = ((64, 6, 2, 4), (96, 6, 1, 3), (160, 6, 2, 3), (320, 6, 1, 1))
"""Channels, expansion, stride, count of blocks before and after the views merge: arXiv 1801.04381,
table 2, merged where the public NOvA project merges them."""


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
    last = (x.shape[axis] - 3) // stride * stride + 1
    return [jax.lax.slice_in_dim(x, i, i + last, stride, axis) for i in range(3)]


def max_pool(x: Float[Array, "n h w c"], stride: int) -> Float[Array, "n h2 w2 c"]:
    """Largest value of 3 x 3 windows, padded to ceil(h / stride) rows, of values >= 0."""
    return _shifted_pool(x, 1) if stride == 1 else _strided_pool(x, stride)


def _shifted_pool(x: Array, stride: int) -> Array:
    """Pooling as shifted maxima: on a CPU fast without stride, and fast in its gradient."""
    for axis in (1, 2):
        size = x.shape[axis]
        missing = (-(-size // stride) - 1) * stride + 3 - size
        pads = [(0, 0)] * 4
        pads[axis] = (missing // 2, missing - missing // 2)
        a, b, c = _thirds(jnp.pad(x, pads), axis, stride)
        x = jnp.maximum(jnp.maximum(a, b), c)
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _strided_pool(x: Array, stride: int) -> Array:
    """XLA's pooling, fast with a stride, but with the gradient of `_shifted_pool`."""
    window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
    largest: Array = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "SAME")
    return largest


def _strided_pool_forward(x: Array, stride: int) -> tuple[Array, Array]:
    return _strided_pool(x, stride), x


def _strided_pool_backward(stride: int, x: Array, slope: Array) -> tuple[Array]:
    return (jax.vjp(lambda x: _shifted_pool(x, stride), x)[1](slope)[0],)


_strided_pool.defvjp(_strided_pool_forward, _strided_pool_backward)


def local_response_norm(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """Divide by (1 + 1e-4 / 5 * sum of squares of 5 neighbouring channels)^0.75.

    Krizhevsky et al. 2012, section 3.3; constants of BVLC/caffe models/bvlc_googlenet. A
    product with a banded matrix would be slower here by a half.
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
        init = nn.initializers.he_normal()
        if self.size == 1:
            return nn.relu(Dense(self.features, True, self.dtype, init, name="product")(x))
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", init, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
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


class Head(nn.Module):
    """Dropout and the last layer, in float32."""

    classes: int
    dropout: float

    @nn.compact
    def __call__(self, features: Float[Array, "n d"], train: bool) -> Output:
        features = features.astype(jnp.float32)
        kept = nn.Dropout(self.dropout, deterministic=not train)(features)
        return Output(nn.Dense(self.classes, name="logits")(kept), features)


class GoogLeNet(nn.Module):
    """The network of Aurisano et al., arXiv 1604.01444: a GoogLeNet branch per view, then one end.

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
        return Head(self.classes, self.dropout, name="head")(pooled, train)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(
    x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c"], stride: int
) -> Float[Array, "n h2 w2 c"]:
    """Convolve each channel with its own 3 x 3 kernel, one zero on every side.

    A sum of nine shifted products: XLA's grouped convolutions are about ten times slower on a CPU.
    """
    weights = kernel.reshape(9, -1)
    total = jnp.zeros((), x.dtype)
    for part, weight in zip(_ninths(x, stride), weights, strict=True):
        total = total + part * weight
    return total


def _ninths(x: Array, stride: int) -> list[Array]:
    """The nine neighbours that each window sees, row by row."""
    rows = _thirds(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 1, stride)
    return [part for row in rows for part in _thirds(row, 2, stride)]


def _depthwise_forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return depthwise(x, kernel, stride), (x, kernel)


def _depthwise_backward(
    stride: int, kept: tuple[Array, Array], slope: Array
) -> tuple[Array, Array]:
    """Gradients as shifted products too; adding up row by row is what XLA can vectorise."""
    x, kernel = kept
    holes = [(0, size - 1 - (n - 1) * stride, stride - 1) for size, n in _sizes(x, slope)]
    spread = jax.lax.pad(slope, jnp.zeros((), slope.dtype), [(0, 0, 0), *holes, (0, 0, 0)])
    by_weight = []
    for part in _ninths(x, stride):
        rows = (part[:, i] * slope[:, i] for i in range(slope.shape[1]))
        by_weight.append(jnp.sum(functools.reduce(jnp.add, rows), axis=(0, 1), dtype=jnp.float32))
    to_kernel = jnp.stack(by_weight).reshape(kernel.shape).astype(kernel.dtype)
    return depthwise(spread, kernel[::-1, ::-1], 1), to_kernel


def _sizes(x: Array, y: Array) -> list[tuple[int, int]]:
    return list(zip(x.shape[1:3], y.shape[1:3], strict=True))


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow (Sandler et al., arXiv 1801.04381, table 1).

    Without batch normalisation; what is added starts at 0 instead (SkipInit, arXiv 2002.10444).
    """

    features: int
    expansion: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 f"]:
        hidden = self.expansion * x.shape[-1]
        y = x
        if self.expansion > 1:
            y = Conv(hidden, 1, dtype=self.dtype, name="widen")(y)
        kernel = self.param("depthwise", nn.initializers.he_normal((0, 1)), (3, 3, hidden))
        bias = self.param("bias", nn.initializers.zeros, (hidden,))
        y = nn.relu(depthwise(y, kernel.astype(self.dtype), self.stride) + bias.astype(self.dtype))
        y = Dense(self.features, dtype=self.dtype, name="narrow")(y)
        if self.stride > 1 or x.shape[-1] != self.features:
            return y
        return x + y * self.param("gain", nn.initializers.zeros, ()).astype(self.dtype)


class MobileNetBranch(nn.Module):
    """One view at an eighth of the planes and cells."""

    alpha: float = 0.25
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n planes cells 1"]) -> Float[Array, "n h w f"]:
        x = Conv(_scaled(32, self.alpha), 3, 2, self.dtype, name="stem")(x)
        return _stages(x, MOBILE_VIEW, self.alpha, self.dtype)


class MobileNetV2(nn.Module):
    """Two MobileNetV2 branches that merge half way, then one; all widths times `alpha`.

    The arrangement of the public NOvA project Ira-Shokar/NOvA-CNN-Project, with the expansion of
    the MobileNetV2 paper (that project also multiplies the expansion by alpha).
    """

    classes: int
    alpha: float = 0.25
    dropout: float = 0.4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Num[Array, "n 2 planes cells"], train: bool) -> Output:
        x = brightness(maps, self.dtype)[..., None]
        branches = [MobileNetBranch(self.alpha, self.dtype, name=f"view{v}") for v in range(2)]
        x = jnp.concatenate([branch(x[:, v]) for v, branch in enumerate(branches)], axis=-1)
        x = _stages(x, MOBILE_MERGED, self.alpha, self.dtype)
        x = Conv(_scaled(1280, self.alpha), 1, dtype=self.dtype, name="last")(x)
        pooled = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        kept = nn.Dropout(self.dropout, deterministic=not train)(pooled)
        features = nn.relu(Dense(1024, init=nn.initializers.he_normal(), name="hidden")(kept))
        return Head(self.classes, self.dropout, name="head")(features, train)


def _scaled(channels: int, alpha: float) -> int:
    return max(1, int(channels * alpha))


def _stages(x: Array, stages: tuple[tuple[int, ...], ...], alpha: float, dtype: Any) -> Array:
    """Chains of blocks, the first of each with the stride; to be called in a compact method."""
    for channels, expansion, stride, count in stages:
        for place in range(count):
            width, step = _scaled(channels, alpha), stride if place == 0 else 1
            name = f"block{channels}_{place}"
            x = InvertedResidual(width, expansion, step, dtype, name=name)(x)
    return x


class SparsePatchTransformer(nn.Module):
    """Attention among the 4 x 4 pixel patches that hold hits; the rest of the maps costs nothing.

    A token is the brightness of its pixels, where they are lit, and its place: learned vectors of
    its view, plane and cell are added. The order of tokens and the amount of padding are without
    influence. Mean, maximum and scaled sum over tokens feed an MLP, whose output is the embedding.
    """

    classes: int
    width: int = 64
    layers: int = 3
    heads: int = 4
    dropout: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: Num[Array, "n k 16"],
        place: Int[Array, "n k"],
        mask: Bool[Array, "n k"],
        train: bool,
    ) -> Output:
        pixels = jnp.concatenate([brightness(tokens, self.dtype), tokens > 0], axis=-1)
        x = Dense(self.width, dtype=self.dtype, name="embed")(pixels)
        x = x + jnp.asarray(self._places())[place].astype(self.dtype)
        for layer in range(self.layers):
            block = TransformerBlock(
                self.heads, 2 * self.width, self.dropout, self.dtype, name=f"block{layer}"
            )
            x = block(x, mask, train)
        x = nn.LayerNorm(dtype=self.dtype)(x)
        features = nn.gelu(MLP((2 * self.width,), name="pooled")(_pool(x, mask)))
        return Head(self.classes, self.dropout, name="head")(features, train)

    def _places(self) -> Float[Array, "places d"]:
        """One vector per patch: the sum of those of its view, plane and cell."""
        normal = nn.initializers.normal(1.0)
        view, plane, cell = (
            self.param(name, normal, (size, self.width))
            for name, size in zip(("view", "plane", "cell"), PLACES, strict=True)
        )
        table = view[:, None, None] + plane[:, None] + cell
        return table.reshape(-1, self.width)


def _pool(x: Float[Array, "n k d"], mask: Bool[Array, "n k"]) -> Float[Array, "n d3"]:
    """Mean, maximum and sum / 64 over the unmasked tokens, zeros where there are none."""
    x, shown = x.astype(jnp.float32), mask[..., None]
    total = jnp.sum(jnp.where(shown, x, 0.0), axis=1)
    count = jnp.sum(mask, axis=1, dtype=jnp.float32)[:, None]
    largest = jnp.max(jnp.where(shown, x, -1e9), axis=1)
    largest = jnp.where(count > 0, largest, 0.0)
    return jnp.concatenate([total / jnp.maximum(count, 1.0), largest, total / 64.0], axis=-1)
