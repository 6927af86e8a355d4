"""Paired timings on one thread: two routes in turn, medians of CPU seconds, and their ratio.

A busy machine slows neighbouring calls alike, so the ratio of each pair is steadier than the
ratio of two separate medians. Call `pin_threads` before numpy or jax is imported.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_XLA = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def pin_threads() -> None:
    """Keep the BLAS, OpenMP, numba and XLA pools and this process to one thread of one core."""
    for variable in _VARIABLES:
        os.environ[variable] = "1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA}".strip()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


class Seconds(NamedTuple):
    """One run, in seconds: processor time of all threads, and wall time."""

    cpu: float
    wall: float


def timed(function: Callable[[], object]) -> Seconds:
    """Run a function once; it has to wait for its own result (`block_until_ready`)."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall)


class Pair(NamedTuple):
    """Medians over the repeats; `ratio` is peer / ours of CPU time, the median over pairs."""

    ours: Seconds
    peer: Seconds
    ratio: float


def _median(runs: list[Seconds]) -> Seconds:
    return Seconds(*(statistics.median(column) for column in zip(*runs, strict=True)))


def paired(
    ours: Callable[[], object], peer: Callable[[], object], repeats: int = 7, warmup: int = 1
) -> Pair:
    """Time both in turn, after `warmup` runs of each that do not count (compilation)."""
    for _ in range(warmup):
        ours()
        peer()
    pairs = [(timed(ours), timed(peer)) for _ in range(repeats)]
    ratio = statistics.median(theirs.cpu / max(mine.cpu, 1e-9) for mine, theirs in pairs)
    return Pair(_median([mine for mine, _ in pairs]), _median([p for _, p in pairs]), ratio)
