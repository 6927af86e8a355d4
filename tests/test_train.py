"""The loop: batches by (seed, step), logs, non-finite metrics; gradient descent by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml.errors import ConfigError, TrainingError
from physml.train import Objective, TrainState, batch_rows, fit

X = np.arange(20.0)[:, None] / 20
SPLITS = {
    "train": {"x": X, "y": 3.0 * X[:, 0]},
    "validation": {"x": X[:5], "y": 3.0 * X[:5, 0] + 1.0},
}


def descent(steps=1, batch_size=None, rate=0.5):
    """Least squares by gradient descent, as a network would be trained."""

    def loss(w, batch):
        return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)

    @jax.jit
    def step(state, batch):
        value, slope = jax.value_and_grad(loss)(state.params["w"], batch)
        params = {"w": state.params["w"] - rate * slope}
        return state._replace(params=params, step=state.step + 1), {"loss": value}

    return Objective(
        init=lambda key, train: TrainState({"w": jnp.zeros(train["x"].shape[1])}, key=key),
        step=step,
        evaluate=lambda state, batch: {"loss": loss(state.params["w"], batch)},
        steps=steps,
        batch_size=batch_size,
    )


def test_one_step_equals_the_formula():
    """From w = 0, one step of rate 0.5 on all rows gives w = mean(x y)."""
    state = fit(descent(), SPLITS, seed=0)
    np.testing.assert_allclose(state.params["w"][0], 3.0 * np.mean(X**2), rtol=1e-6)


def test_many_steps_reach_the_solution_and_log_each():
    log = []
    state = fit(descent(steps=400, batch_size=10), SPLITS, seed=1, log=log.append)
    np.testing.assert_allclose(state.params["w"], [3.0], atol=1e-3)
    assert [r["step"] for r in log] == [*range(1, 401), 400]
    assert log[0]["loss"] > 1.0 > log[-2]["loss"]
    assert log[-1]["validation_loss"] == pytest.approx(1.0, abs=1e-2)  # offset of 1 in y
    assert int(state.step) == 400


def test_the_same_seed_gives_the_same_bits():
    one, two, other = (
        np.asarray(fit(descent(7, 4), SPLITS, seed).params["w"]) for seed in (3, 3, 4)
    )
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_batches_are_a_pure_function_of_seed_and_step():
    train = SPLITS["train"]
    epoch = np.concatenate([batch_rows(5, step, train, 4) for step in range(5)])
    assert sorted(epoch) == list(range(20))
    np.testing.assert_array_equal(batch_rows(5, 3, train, 4), epoch[12:16])
    following = np.concatenate([batch_rows(5, step, train, 4) for step in range(5, 10)])
    assert sorted(following) == list(range(20)) and (following != epoch).any()
    assert batch_rows(5, 0, train, None) is None


@pytest.mark.parametrize("size", [0, -1, 21])
def test_a_batch_that_does_not_fit_is_refused(size):
    with pytest.raises(ConfigError, match="training rows"):
        fit(descent(batch_size=size), SPLITS, seed=0)


def test_a_loss_that_is_not_finite_stops_with_step_and_rows():
    with pytest.raises(TrainingError, match=r"step \d+: loss not finite on rows \["):
        fit(descent(steps=5000, batch_size=5, rate=1e6), SPLITS, seed=0)
    nan = {"train": {"x": X, "y": np.full(20, np.nan)}}
    with pytest.raises(TrainingError, match="step 1: loss not finite on all rows"):
        fit(descent(), nan, seed=0)
