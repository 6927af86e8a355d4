"""A shower generator as one function of one array, the form that ONNX programs feed.

Geant4's example Par04 (examples/extended/parameterisations/Par04, Par04InferenceSetup.cc and
Par04OnnxInference.cc) fills one float32 tensor of shape (1, latent + conditions) with standard
normal deviates first and the conditions after them, runs the network, and multiplies each number
that comes out by the incident energy. `single_input` has this form, for any number of rows.

Par04 has four conditions: incident energy / largest energy, polar angle in degrees / largest angle,
and two numbers that tell its two detectors apart. This generator knows one geometry and showers
along its axis, and has the first only: take the other three out of `GetEnergies` and set the size
of the condition vector to 1. Par04 places its cells by r, then phi, then z (z fastest); here they
come by layer, then alpha, then r. The function of Par04 to change for that is `GetPositions`.

A voxel within rounding (1e-6) of the threshold may be empty in one program and not in another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float32

from physml.calorimeter import generator
from physml.calorimeter.generator import HEAD_LATENT, Grid, Scale
from physml.calorimeter.nets import Generator
from physml.errors import ConfigError
from physml.export import arguments

SingleInput = Callable[[Float32[Array, "b latent+1"]], Float32[Array, "b voxels"]]
"""Normal deviates and the incident energy / largest energy -> deposits / incident energy."""


def latent_size(geometry: Grid) -> int:
    """Normal deviates of one shower: for the layers' energies, the shape, and each voxel."""
    return HEAD_LATENT + generator.LATENT + geometry.size


def single_input(
    net: Generator, params: Any, scale: Scale, geometry: Grid, largest_energy: float
) -> SingleInput:
    """The generator as a function of one array, its weights within; see the head of this file.

    Args:
        net: the network.
        params: its weights.
        scale: its tables.
        geometry: see `generator.grid`.
        largest_energy: MeV, by which the caller divides the incident energy.

    Raises:
        ConfigError: the largest energy is not above 0.
    """
    if not 0 < largest_energy < np.inf:
        raise ConfigError("export", f"largest energy {largest_energy:g} MeV", "give one above 0")
    weights, tables = jax.tree.map(np.asarray, (params, scale))

    def showers(x: Any) -> Any:
        energy = x[:, -1] * np.float32(largest_energy)
        head, body = x[:, :HEAD_LATENT], x[:, HEAD_LATENT:-1]
        made = generator.from_latents(net, weights, tables, geometry, head, body, energy)
        return made / energy[:, None]

    return showers


def inputs(geometry: Grid) -> dict[str, jax.ShapeDtypeStruct]:
    """The one argument of `single_input` for `physml.export`, at any number of rows."""
    return arguments(x=(f"showers, {latent_size(geometry) + 1}", np.float32))
