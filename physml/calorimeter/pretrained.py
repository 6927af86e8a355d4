"""A trained generator as one file: its averaged weights, its tables, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from physml.calorimeter.generator import Scale, Table
from physml.errors import DataError
from physml.io import hdf5

KEPT = ("average", "scale")


def write(path: str | Path, params: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write the generator of a fit (HDF5, with its sha256), whole or not at all.

    Args:
        path: file to write or replace.
        params: of a fit, see `physml.calorimeter.objective`.
        about: text and numbers on where the weights come from: command, seed, data.
    """
    arrays = dict(_flat({name: params[name] for name in KEPT}))
    hdf5.write(path, arrays, about)


def read(path: str | Path) -> dict[str, Any]:
    """Params that `objective.sampler` takes.

    Raises:
        DataError: missing, damaged, or no generator.
    """
    held: dict[str, Any] = {}
    for name, array in hdf5.read(path).items():
        place = held
        *folders, last = name.split("/")
        for part in folders:
            place = place.setdefault(part, {})
        place[last] = jnp.asarray(array)
    try:
        span, tables = held["scale"].pop("span"), held["scale"]
        scale = Scale(span, **{name: Table(**columns) for name, columns in tables.items()})
        return {"average": held["average"], "scale": scale}
    except (KeyError, TypeError, AttributeError) as error:
        what = f"holds no generator ({error})"
        raise DataError(path, what, "give a file that `pack` has written") from error


def _flat(tree: Any, name: str = "") -> list[tuple[str, np.ndarray]]:
    """Names such as "average/body/Dense_0/kernel" and arrays of a nest of dicts and tuples."""
    if hasattr(tree, "_asdict"):
        tree = tree._asdict()
    if not isinstance(tree, Mapping):
        return [(name, np.asarray(tree))]
    return [pair for k, v in tree.items() for pair in _flat(v, f"{name}/{k}" if name else k)]
