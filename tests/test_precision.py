"""Float64 inside, whatever the setting of the user, which survives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml.precision import float64


@pytest.mark.parametrize("setting", [False, True])
def test_float64_inside_and_the_setting_of_the_user_outside(setting):
    with jax.enable_x64(setting):
        third = float64(lambda x: jnp.asarray(x) / 3)(np.float64(1.0))
        assert third.dtype == np.float64 and float(third) == 1.0 / 3.0
        assert jax.config.read("jax_enable_x64") == setting


def test_the_setting_returns_after_an_error():
    @float64
    def fail():
        raise ValueError(jnp.ones(1).dtype)

    with pytest.raises(ValueError, match="float64"):
        fail()
    assert jnp.ones(1).dtype == np.float32
