"""The canary: this machine's JAX agrees with NumPy, and a JAX that does not is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml import backend
from physml.errors import TrainingError


def test_this_jax_computes_right_numbers():
    backend.check()


@pytest.mark.parametrize("kernel", backend.kernels(), ids=lambda k: k.name)
def test_kernels_agree_to_rounding(kernel):
    assert backend.relative_error(kernel, np.float32) < 1e-6
    assert backend.relative_error(kernel, np.float64) < 1e-14


def broken(kernel, change):
    return kernel._replace(name="a broken kernel", compiled=lambda *a: change(kernel.compiled(*a)))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.at[-1].multiply(1.01),  # one row in 70,000, as jax 0.10.2 gets wrong
        lambda x: x.at[5].set(jnp.nan),
        lambda x: x[:-1],
    ],
    ids=["one value off", "nan", "shape"],
)
def test_wrong_numbers_are_refused_in_one_line(change):
    wrong = broken(backend.kernels()[0], change)
    with pytest.raises(TrainingError) as error:
        backend.check((wrong,))
    line = str(error.value)
    assert "a broken kernel" in line and jax.__version__ in line and "install" in line
    assert "\n" not in line


def test_an_error_that_only_many_rows_show_is_refused():
    """As in jax 0.10.2, where fewer than 16,385 rows came out right."""
    kernel = backend.kernels()[0]
    late = broken(kernel, lambda x: jnp.where(jnp.arange(len(x)) < 65_000, x, 1.0005 * x))
    with pytest.raises(TrainingError, match="float32"):
        backend.check((late,))


def test_an_error_that_only_float64_shows_is_refused():
    slight = broken(backend.kernels()[0], lambda x: x * (1 + 1e-9))
    with pytest.raises(TrainingError, match="float64"):
        backend.check((slight,))


def test_a_run_checks_the_kernels_of_its_own_too(monkeypatch):
    seen = []
    monkeypatch.setattr(backend, "relative_error", lambda k, dtype: seen.append(k.name) or 0.0)
    backend.check((backend.kernels()[0]._replace(name="of a domain"),))
    assert {"of a domain", *(kernel.name for kernel in backend.kernels())} == set(seen)


def test_the_setting_of_the_user_survives():
    before = jax.config.read("jax_enable_x64")
    backend.relative_error(backend.kernels()[1], np.float64)
    assert jax.config.read("jax_enable_x64") == before
