"""Linen blocks that two or more domains share: a multilayer perceptron and masked self-attention.

Weights are float32; `dtype` is the type of the activations. No block keeps running statistics, so
a network in training is a pure function of its weights and its dropout key.
"""

# ruff: noqa: D102 (the docstring of a block says what its __call__ does)
from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Dense(nn.Module):
    """Linear layer on the last axis, computed as one product of two matrices.

    With more axes XLA would copy the transposed input for the gradient: twice the time on a CPU.
    """

    features: int
    bias: bool = True
    dtype: Any = jnp.float32
    init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b f"]:
        kernel = self.param("kernel", self.init, (x.shape[-1], self.features))
        y: Array = x.reshape(-1, x.shape[-1]).astype(self.dtype) @ kernel.astype(self.dtype)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)
        return y.reshape(*x.shape[:-1], self.features)


class MLP(nn.Module):
    """Dense layers of the given widths, GELU between them, nothing after the last."""

    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b out"]:
        for place, width in enumerate(self.widths):
            x = nn.gelu(x) if place else x
            x = Dense(width, dtype=self.dtype)(x)
        return x


class Attention(nn.Module):
    """Self-attention among the unmasked tokens of each row (Vaswani et al., arXiv 1706.03762).

    A row without any token gives finite numbers, which the caller masks.
    """

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n k d"], mask: Bool[Array, "n k"]) -> Float[Array, "n k d"]:
        n, k, d = x.shape
        joint = Dense(3 * d, bias=False, dtype=self.dtype, name="joint")(x)
        query, key, value = (
            part.reshape(n, k, self.heads, -1).swapaxes(1, 2) for part in jnp.split(joint, 3, -1)
        )
        scores = jnp.einsum("nhqc,nhkc->nhqk", query, key) * (d / self.heads) ** -0.5
        scores = jnp.where(mask[:, None, None, :], scores.astype(jnp.float32), -1e9)
        weights = jax.nn.softmax(scores).astype(self.dtype)
        mixed = jnp.einsum("nhqk,nhkc->nhqc", weights, value).swapaxes(1, 2).reshape(n, k, d)
        return Dense(d, bias=False, dtype=self.dtype, name="mixed")(mixed)


class TransformerBlock(nn.Module):
    """Attention, then an MLP of one hidden layer, each added to the normalised stream's input.

    Normalisation stands before each part (arXiv 2002.04745). `dropout` acts on what is
    added, with one draw for all tokens of a row, so that it does not depend on their number.
    """

    heads: int
    hidden: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "n k d"], mask: Bool[Array, "n k"], train: bool
    ) -> Float[Array, "n k d"]:
        drop = nn.Dropout(self.dropout, broadcast_dims=(1,), deterministic=not train)
        attention = Attention(self.heads, self.dtype)
        x = x + drop(attention(nn.LayerNorm(dtype=self.dtype)(x), mask))
        mlp = MLP((self.hidden, x.shape[-1]), self.dtype)
        x = x + drop(mlp(nn.LayerNorm(dtype=self.dtype)(x)))
        return x
