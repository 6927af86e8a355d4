"""The loop: batches by (seed, step), logs, non-finite metrics; gradient descent by hand."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physml import record
from physml.errors import ConfigError, DataError, TrainingError
from physml.signals import Stop
from physml.train import Objective, TrainState, batch_rows, fit, in_batches

X = np.arange(20.0)[:, None] / 20
SPLITS = {
    "train": {"x": X, "y": 3.0 * X[:, 0]},
    "validation": {"x": X[:5], "y": 3.0 * X[:5, 0] + 1.0},
}


def descent(steps=1, batch_size=None, rate=0.5, **options):
    """Least squares by gradient descent, as a network would be trained."""

    def loss(w, batch):
        return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)

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
        **options,
    )


def test_one_step_equals_the_formula():
    """From w = 0, one step of rate 0.5 on all rows gives w = mean(x y)."""
    found = fit(descent(), SPLITS, seed=0)
    np.testing.assert_allclose(found.state.params["w"][0], 3.0 * np.mean(X**2), rtol=1e-6)
    assert found.finished


def test_many_steps_reach_the_solution_and_log_each(tmp_path):
    state = fit(descent(steps=400, batch_size=10), SPLITS, seed=1, folder=tmp_path).state
    np.testing.assert_allclose(state.params["w"], [3.0], atol=1e-3)
    log = record.read_metrics(tmp_path)
    np.testing.assert_array_equal(log["loss"][:, 0], np.arange(1, 401))
    assert log["loss"][0, 1] > 1.0 > log["loss"][-1, 1]
    assert log["validation_loss"].tolist() == [[400, pytest.approx(1.0, abs=1e-2)]]  # offset in y
    assert int(state.step) == 400


def test_the_same_seed_gives_the_same_bits():
    one, two, other = (
        np.asarray(fit(descent(7, 4), SPLITS, seed).state.params["w"]) for seed in (3, 3, 4)
    )
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_the_best_evaluation_is_kept_and_hopeless_fits_stop_early(tmp_path):
    """With a slope that overshoots, the loss rises from the first evaluation on."""
    rising = descent(steps=50, rate=4.0, evaluate_every=2, patience=3)
    found = fit(rising, SPLITS, seed=0, folder=tmp_path)
    assert found.finished
    assert int(found.best.step) == 2 and int(found.state.step) == 8
    values = record.read_metrics(tmp_path)["validation_loss"]
    assert values[:, 0].tolist() == [2, 4, 6, 8] and (np.diff(values[:, 1]) > 0).all()
    again = fit(rising, SPLITS, seed=0, folder=tmp_path)  # finished: nothing is done again
    assert int(again.best.step) == 2
    assert again.best.params["w"].tobytes() == found.best.params["w"].tobytes()


def test_evaluation_comes_every_k_steps_and_at_the_last(tmp_path):
    fit(descent(steps=7, evaluate_every=3), SPLITS, seed=0, folder=tmp_path)
    assert record.read_metrics(tmp_path)["validation_loss"][:, 0].tolist() == [3, 6, 7]
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["best-00000006", "best-00000007", "step-00000006", "step-00000007"]


def test_a_metric_to_monitor_must_be_evaluated():
    with pytest.raises(ConfigError, match="accuracy is not evaluated; use loss"):
        fit(descent(monitor="accuracy"), SPLITS, seed=0)


def test_a_batch_of_another_shape_would_compile_again():
    class Growing(dict):
        def items(self):  # one more column at every batch
            self["columns"] = self.get("columns", 0) + 1
            return [("x", np.ones((8, self["columns"])))]

    objective = Objective(
        lambda key, rows: TrainState({"w": jnp.zeros(())}),
        lambda state, batch: (state, {"loss": batch["x"].sum()}),
        lambda state, batch: {},
        steps=3,
        batch_size=2,
    )
    with pytest.raises(TrainingError, match="would compile again"):
        fit(objective, {"train": Growing(y=np.ones(8))}, seed=0)


def test_rows_go_through_in_batches_of_one_size():
    sizes = []

    def double(batch):
        sizes.append(len(batch["x"]))
        return {"y": 2 * batch["x"]}

    found = in_batches(double, {"x": np.arange(10.0)}, 4)
    np.testing.assert_array_equal(found["y"], 2 * np.arange(10.0))
    assert sizes == [4, 4, 4]


def test_a_missing_best_checkpoint_and_another_seed_are_refused(tmp_path):
    rising = descent(steps=50, rate=4.0, evaluate_every=2, patience=3)
    fit(rising, SPLITS, seed=0, folder=tmp_path)
    with pytest.raises(ConfigError, match="is of seed 0, not 1"):
        fit(rising, SPLITS, seed=1, folder=tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "best-00000002")
    with pytest.raises(DataError, match="best-00000002: is missing"):
        fit(rising, SPLITS, seed=0, folder=tmp_path)


@pytest.mark.parametrize("damage", [lambda log: b"", lambda log: log.replace(b"1", b"2")])
def test_a_log_that_its_checkpoint_does_not_know_is_refused(tmp_path, damage):
    fit(descent(steps=4), SPLITS, seed=0, folder=tmp_path, stop=Stop(lambda: True))
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(damage(log.read_bytes()))
    with pytest.raises(DataError, match=r"metrics\.jsonl: is (not the log|missing or empty)"):
        fit(descent(steps=4), SPLITS, seed=0, folder=tmp_path)


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
