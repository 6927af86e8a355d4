"""Networks of the calorimeter domain: the classifier that tells generated showers from real."""

# ruff: noqa: D102 (the docstring of a block says what its __call__ does)
from __future__ import annotations

import flax.linen as nn
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
