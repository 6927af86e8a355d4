"""Float64 for descriptors, regression, Hessians and entropies, whatever the global flag says."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def float64(function: Callable[P, T]) -> Callable[P, T]:
    """Run `function` with JAX's 64-bit types enabled; the caller's setting returns afterwards.

    JAX silently downcasts float64 input to float32 when its 64-bit types are off, so every
    host-side entry point of the float64 domains wears this decorator.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return wrapper
