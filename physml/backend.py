"""A canary for the compiler: compare what JAX computes on this device with NumPy.

Some JAX releases compile a matrix-vector product followed by a sum to wrong numbers once there are
some ten thousand rows, without a word (jax issue 39103; release 0.10.2 on CPU). Small tests pass
there, so this check uses 70,000 rows and runs at the head of every run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physml.errors import TrainingError

ROWS = 70_000
SEGMENTS = 1_000


class Kernel(NamedTuple):
    """One calculation written twice: for JAX (jitted here) and for NumPy in float64."""

    name: str
    compiled: Callable[..., Any]
    reference: Callable[..., Any]
    arguments: tuple[np.ndarray, ...]  # float64 and int32; floats are cast to the type under test
    dtypes: tuple[Any, ...] = (np.float32, np.float64)  # types it is used in


def check(extra: tuple[Kernel, ...] = ()) -> None:
    """Compare the built-in kernels, and `extra` ones of a domain, in the types they use.

    Raises:
        TrainingError: one differs from NumPy; names kernel, type, jax version and device.
    """
    for kernel in (*kernels(), *extra):
        for dtype in kernel.dtypes:
            tolerance = 1e-4 if dtype == np.float32 else 1e-11
            error = relative_error(kernel, dtype)
            if not error < tolerance:  # a NaN is an error too
                raise TrainingError(
                    f"jax {jax.__version__} on {jax.devices()[0].device_kind}",
                    f"computes {kernel.name} in {np.dtype(dtype).name} with relative error "
                    f"{error:.1e} over {ROWS} rows",
                    "install another release: pip install 'jax>=0.10.1,!=0.10.2,!=0.11.0,!=0.11.1'",
                )


def relative_error(kernel: Kernel, dtype: Any) -> float:
    """Largest deviation from NumPy over the largest value; NaN when a result is not finite."""
    cast = [a.astype(dtype) if a.dtype.kind == "f" else a for a in kernel.arguments]
    expected = kernel.reference(*(a.astype(np.float64) if a.dtype.kind == "f" else a for a in cast))
    with jax.enable_x64(dtype == np.float64), jax.default_matmul_precision("highest"):
        measured = np.asarray(jax.jit(kernel.compiled)(*cast), np.float64)
    if measured.shape != expected.shape or not np.all(np.isfinite(measured)):
        return float("nan")
    return float(np.max(np.abs(measured - expected)) / np.max(np.abs(expected)))


def kernels() -> tuple[Kernel, ...]:
    """The pattern of jax issue 39103, a segment sum, and a batched product with its sum."""
    random = np.random.default_rng(39103)
    cell = random.normal(size=(3, 3))
    vectors = random.normal(size=(ROWS, 3))
    segments = random.integers(0, SEGMENTS, ROWS).astype(np.int32)
    left, right = random.normal(size=(ROWS, 3, 4)), random.normal(size=(ROWS, 4, 2))
    return (
        Kernel("sum((cell @ r)**2)", _norms, lambda c, r: ((r @ c.T) ** 2).sum(1), (cell, vectors)),
        Kernel("a segment sum", _segment_sum, _numpy_segment_sum, (vectors, segments)),
        Kernel(
            "sum((a @ b)**2)",
            lambda a, b: jnp.sum((a @ b) ** 2, axis=(1, 2)),
            lambda a, b: ((a @ b) ** 2).sum((1, 2)),
            (left, right),
        ),
    )


def _norms(cell: jax.Array, vectors: jax.Array) -> jax.Array:
    return jax.vmap(lambda r: jnp.sum((cell @ r) ** 2))(vectors)


def _segment_sum(values: jax.Array, segments: jax.Array) -> jax.Array:
    return jax.ops.segment_sum(values, segments, SEGMENTS)


def _numpy_segment_sum(values: np.ndarray, segments: np.ndarray) -> np.ndarray:
    total = np.zeros((SEGMENTS, values.shape[1]))
    np.add.at(total, segments, values)
    return total
