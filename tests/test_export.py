"""Functions written as ONNX and StableHLO, run back by onnxruntime and by JAX."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml import export
from physml.errors import ConfigError

pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(6, 4)).astype(np.float32)
X = export.arguments(x=("rows, 6", np.float32))


def normed(x):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 0.01)


def network(x):
    for kernel in (TABLE, TABLE.T):
        x = jax.nn.relu(x @ kernel + 0.1)
    return jax.jit(normed)(x)


FUNCTIONS = {
    "network": network,
    "activations": lambda x: jnp.concatenate(
        [f(x) for f in (jax.nn.gelu, jax.nn.silu, jax.nn.softplus, jax.nn.elu, jnp.tanh)], 1
    ),
    "softmax": lambda x: jax.nn.softmax(x),
    "roots and powers": lambda x: jnp.sqrt(x**2 + 1) + jnp.log1p(jnp.exp(-jnp.abs(x))) * x**3,
    "choices": lambda x: jnp.where((x > 0) & (x < 1) | (x == 2), x, -x).clip(-0.7, 0.8),
    "shapes": lambda x: jnp.transpose(x.reshape(-1, 2, 3), (2, 0, 1))[1, :, 1:],
    "products": lambda x: jnp.einsum("nij,nkj->nik", x.reshape(-1, 2, 3), x.reshape(-1, 2, 3)),
    "two symbols": lambda x: x @ x.T,
    "largest and sums": lambda x: x.max(1) + x.sum(1) - x.min(1),
    "columns": lambda x: x[:, jnp.array([4, 0, -1])],
    "parts": lambda x: jnp.split(x, (1, 4), axis=1)[1] * jnp.split(x, 2, axis=1)[1],
    "limits": lambda x: jax.lax.clamp(-0.5, x, 0.25) + jax.nn.sigmoid(jnp.clip(x, 0.1, 1.0)),
    "comparisons": lambda x: jnp.stack(
        [f(x, x[:, :1]).sum(1) for f in (jnp.less_equal, jnp.not_equal, jnp.greater)], 1
    ),
    "rows by number": lambda x: jnp.asarray(TABLE)[(x[:, 0] > 0).astype(jnp.int32)],
    "recomputed": jax.checkpoint(network),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_runs_back_at_any_size(name):
    function = FUNCTIONS[name]
    model = export.onnx(function, X, "y")
    for rows in (1, 7):
        x = RNG.normal(size=(rows, 6)).astype(np.float32)
        expected = np.asarray(function(x))
        found = export.run_onnx(model, {"x": x})
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=2e-6, rtol=2e-6)


def test_exponentials_less_one_keep_their_digits():
    """Against NumPy in float64, from where e^x - 1 would be nothing to where e^x is all."""
    x = np.array([[0, 1e-30, 3e-8, -1e-6, 1e-3, -0.1], [1, -3, 10, -40, 80, -1e4]], np.float32)
    model = export.onnx(lambda x: jnp.expm1(x), X, "y")
    np.testing.assert_allclose(export.run_onnx(model, {"x": x}), np.expm1(x.astype(float)), 5e-6)


def test_sums_of_rows_meet_in_every_node():
    """Many edges of one node, two of another, none of the rest; against NumPy in float64."""
    inputs = export.arguments(
        values=("edges, 3", np.float32), at=("edges", np.int32), like=("nodes, 3", np.float32)
    )

    def total(values, at, like):
        return jax.ops.segment_sum(values, at, like.shape[0])

    values = RNG.normal(size=(5000, 3)).astype(np.float32)
    at = np.zeros(5000, np.int32)
    at[[3, 77]] = 4
    expected = np.zeros((6, 3))
    np.add.at(expected, at, values)
    given = {"values": values, "at": at, "like": np.zeros((6, 3), np.float32)}
    found = export.run_onnx(export.onnx(total, inputs, "sums"), given)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    again = export.run_stablehlo(export.stablehlo(total, inputs), given)
    np.testing.assert_allclose(again, expected, atol=1e-3)


def test_what_is_the_same_is_written_once():
    onnx = pytest.importorskip("onnx")
    twice = lambda x: (x @ (TABLE - TABLE.mean())) * (x @ (TABLE - TABLE.mean()))
    graph = onnx.load_from_string(export.onnx(twice, X, "y")).graph
    assert [node.op_type for node in graph.node] == ["MatMul", "Mul", "Identity"]
    (weight,) = graph.initializer  # the difference was taken when the file was written
    np.testing.assert_allclose(onnx.numpy_helper.to_array(weight), TABLE - TABLE.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: jnp.sort(x), "no rule for the operation sort"),
        (lambda x: jnp.sum(x) * jnp.ones(x.shape[0] + 1), "not written with size rows \\+ 1"),
        (lambda x: x.astype(jnp.bfloat16), "not written with type bfloat16"),
        (lambda x: x[jnp.arange(2), jnp.arange(2)], "no rule for this kind of gather"),
    ],
)
def test_what_cannot_be_written_is_named_in_one_line(function, text):
    with pytest.raises(ConfigError, match=f"ONNX: .*{text}") as caught:
        export.onnx(function, X, "y")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(package, monkeypatch):
    model = export.onnx(lambda x: -x, X, "y")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{package}: is not installed; pip install .*export"):
        export.onnx(lambda x: -x, X, "y")
        export.run_onnx(model, {"x": TABLE})
