"""The generator in Par04's form: run back by onnxruntime and by JAX, at any number of showers."""

from functools import partial

import jax
import numpy as np
import pytest

from physml import export
from physml.calorimeter import exports, generator, objective
from physml.calorimeter.events import Showers
from physml.calorimeter.generator import HEAD_LATENT, LATENT
from physml.calorimeter.geometry import Geometry, polar_layer
from physml.errors import ConfigError

pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

pytestmark = pytest.mark.usefixtures("quick_compilation")
LARGEST = 65536.0  # MeV
GEOMETRY = Geometry(
    (
        polar_layer(0, 1, (0, 5, 10, 30, 60)),
        polar_layer(1, 10, (0, 2, 5, 12, 30)),
        polar_layer(2, 4, (0, 10, 20)),
    ),
    "photon",
    1.0,
)


@pytest.fixture(scope="module")
def made():
    """A generator with some weights, and tables of showers of noise."""
    rng = np.random.default_rng(0)
    energy = 256 * 2.0 ** rng.integers(0, 9, 600)
    parts = rng.gamma(0.3, size=(600, GEOMETRY.size))
    response = rng.normal(0.9, 0.05, (600, 1))
    deposits = energy[:, None] * response * parts / parts.sum(axis=1, keepdims=True)
    deposits[deposits < GEOMETRY.threshold] = 0
    scale = generator.fit_scale(Showers(energy, deposits.astype(np.float32)), GEOMETRY)
    nets, grid = objective.networks(GEOMETRY, (32, 32), (8,)), generator.grid(GEOMETRY)
    knots, layers, size = len(scale.voxels.mean), len(GEOMETRY.layers), GEOMETRY.size

    def both(net, *x):
        return net.energies(*x[:2]), net.voxels(*x[2:])

    widths = (HEAD_LATENT, 1 + knots, LATENT, size, 2 + knots + layers)
    zeros = [np.zeros((1, width), np.float32) for width in widths]
    init = jax.jit(partial(nets.generator.init, method=both))
    params = init(jax.random.PRNGKey(0), *zeros)["params"]
    params = jax.tree.map(lambda w: w + rng.normal(0, 0.05, w.shape).astype(np.float32), params)
    return nets.generator, params, scale, grid


def normals(grid, rows, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, exports.latent_size(grid) + 1)).astype(np.float32)
    x[:, -1] = rng.uniform(0.003, 1, rows)
    return x


@pytest.fixture(scope="module")
def expected(made):
    """300 showers by the function itself."""
    function = jax.jit(exports.single_input(*made, LARGEST))
    return np.asarray(function(normals(made[-1], 300)))


def test_one_array_gives_what_the_generator_gives(made, expected):
    """Deviates of the energies, then of the voxels, then the energy; deposits over the energy."""
    x = normals(made[-1], 300)
    head, body, energy = x[:, :HEAD_LATENT], x[:, HEAD_LATENT:-1], x[:, -1] * np.float32(LARGEST)
    showers = np.asarray(jax.jit(partial(generator.from_latents, *made))(head, body, energy))
    np.testing.assert_allclose(expected * energy[:, None], showers, rtol=1e-5, atol=1e-5)
    assert 0 < (expected > 0).mean() < 1


@pytest.mark.parametrize("form", ["onnx", "stablehlo"])
def test_files_run_back_at_any_number_of_showers(form, made, expected):
    """To 1e-5 of the largest deposit of each shower."""
    function, inputs = exports.single_input(*made, LARGEST), exports.inputs(made[-1])
    if form == "onnx":
        model, run = export.onnx(function, inputs, "energies"), export.run_onnx
    else:
        model, run = export.stablehlo(function, inputs), export.run_stablehlo
    for rows in (1, 300):
        found = run(model, {"x": normals(made[-1], 300)[:rows]})
        assert found.shape == (rows, GEOMETRY.size)
        largest = expected[:rows].max(axis=1)
        assert (largest > 0).all()
        assert (np.abs(found - expected[:rows]).max(axis=1) <= 1e-5 * largest).all()


def test_an_onnx_program_sees_one_float32_tensor_of_rows(made):
    """What Par04 needs: one input, sizes below 0 where free, names it asks the file for."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = export.onnx(exports.single_input(*made, LARGEST), exports.inputs(made[-1]), "energies")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert given.type == found.type == "tensor(float)"
    assert given.shape == ["showers", exports.latent_size(made[-1]) + 1]
    assert found.shape == ["showers", GEOMETRY.size]


@pytest.mark.parametrize("largest", [0.0, -1.0, np.inf, np.nan])
def test_a_largest_energy_that_is_none_is_refused(largest, made):
    with pytest.raises(ConfigError, match="largest energy .* MeV; give one above 0"):
        exports.single_input(*made, largest)
