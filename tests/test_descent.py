"""Gradient descent against formulas, and fits that stop and go on bit-identically."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from physml import checkpoint, descent
from physml.errors import ConfigError
from physml.options import Descent
from physml.record import read_metrics
from physml.signals import Stop
from physml.train import fit

OPTIONS = Descent(
    steps=24, batch_size=8, learning_rate=0.05, schedule="plateau", plateau=3, accumulate=2,
    clip=0.5, weight_decay=0.01, evaluate_every=5,
)  # fmt: skip


def rows(seed, n):
    x = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
    return {"x": x, "y": np.sin(x.sum(1))}


SPLITS = {"train": rows(0, 64), "validation": rows(1, 13)}


def network(options):
    """A small network with noise on its hidden layer, as dropout would be."""

    def init(key, train):
        one, two = jax.random.split(key)
        return {"a": jax.random.normal(one, (6, 16)) / 2, "b": jax.random.normal(two, (16,)) / 4}

    def predict(params, x, noise):
        return jnp.tanh(x @ params["a"] + noise) @ params["b"]

    def loss(params, batch, key):
        noise = 0.1 * jax.random.normal(key, (len(batch["x"]), 16))
        return jnp.mean((predict(params, batch["x"], noise) - batch["y"]) ** 2), {}

    def per_row(params, batch):
        return {"loss": (predict(params, batch["x"], 0.0) - batch["y"]) ** 2}

    return descent.objective(options, init, loss, per_row)


def files(folder):
    """Arrays and log of a finished fit, as bytes."""
    found = checkpoint.latest(folder / "checkpoints", "step")
    best = checkpoint.latest(folder / "checkpoints", "best")
    assert found.metadata["place"]["finished"]
    arrays = [jax.tree.leaves(c.tree) for c in (found, best)]
    log = (folder / "metrics.jsonl").read_bytes()
    return [[a.tobytes() for a in leaves] for leaves in arrays], found.metadata, log


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The fit that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    fit(network(OPTIONS), SPLITS, seed=3, folder=folder)
    return files(folder)


@pytest.mark.parametrize("every", [3, 5])
def test_a_fit_stopped_every_few_steps_ends_with_the_same_bits(tmp_path, whole, every):
    """Weights, optimiser, accumulated gradient, plateau, best and log; also at an evaluation."""
    calls = [0]

    def stop():
        calls[0] += 1
        return calls[0] % every == 0

    runs = 1
    while not fit(network(OPTIONS), SPLITS, seed=3, folder=tmp_path, stop=Stop(stop)).finished:
        runs += 1
    assert runs >= 24 // every
    assert files(tmp_path) == whole


def test_a_full_disk_while_saving_loses_nothing(tmp_path, whole, monkeypatch):
    write, calls = checkpoint.write_json, [0]

    def full(path, value):
        calls[0] += 1
        if calls[0] == 3:
            raise OSError(28, "No space left on device")
        write(path, value)

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        fit(network(OPTIONS), SPLITS, seed=3, folder=tmp_path)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["best-00000005", "step-00000005"]  # whole ones only, nothing half-written
    fit(network(OPTIONS), SPLITS, seed=3, folder=tmp_path)
    assert files(tmp_path) == whole


def test_a_damaged_last_checkpoint_costs_steps_but_no_bits(tmp_path, whole, capsys):
    # Asked after each step, and after the saves at 5, 10 and 15.
    stop = Stop(iter([False] * 19 + [True]).__next__)
    fit(network(OPTIONS), SPLITS, seed=3, folder=tmp_path, stop=stop)
    damaged = checkpoint.latest(tmp_path / "checkpoints", "step").path
    assert damaged.name == "step-00000017"
    victim = max((damaged / "arrays").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    fit(network(OPTIONS), SPLITS, seed=3, folder=tmp_path)
    assert "step-00000017" in capsys.readouterr().err
    assert files(tmp_path) == whole


def forever(folder, steps):
    options = replace(OPTIONS, steps=steps, evaluate_every=20)
    fit(network(options), SPLITS, seed=3, folder=Path(folder))


@pytest.mark.slow
def test_a_fit_killed_at_20_random_instants_ends_with_the_same_bits(tmp_path):
    """SIGKILL while it compiles, steps, evaluates or saves; processes fork with jax imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["physml.descent", "orbax.checkpoint"])
    steps, dice = 600, random.Random(2)

    def start(name):
        process = context.Process(target=forever, args=(str(tmp_path / name), steps))
        process.start()
        return process

    uninterrupted = start("whole")
    uninterrupted.join(120)
    assert uninterrupted.exitcode == 0
    kills = 0
    while kills < 20:
        process = start("killed")
        begun = time.monotonic()
        log = tmp_path / "killed" / "metrics.jsonl"
        size = log.stat().st_size if log.exists() else 0
        while process.is_alive() and not (log.exists() and log.stat().st_size != size):
            time.sleep(0.002)
            assert time.monotonic() - begun < 60
        process.join(dice.uniform(0.0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if process.exitcode == 0:
            break
        kills += 1
    last = start("killed")
    last.join(120)
    assert last.exitcode == 0
    assert kills >= 10
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    kept = [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()]
    assert sum(name.startswith("step") for name in kept) >= 2


def test_two_devices_compute_the_losses_of_one(tmp_path):
    """Data parallel: the same losses to float32 rounding, on two forced CPU devices."""
    script = (
        "import sys, jax\n"
        f"sys.path[:0] = [{str(Path(__file__).parents[1])!r}, {str(Path(__file__).parent)!r}]\n"
        "import test_descent as t\n"
        "t.fit(t.network(t.OPTIONS), t.SPLITS, 3, t.Path(sys.argv[1]))\n"
        "print(jax.local_device_count())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "two")],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "2"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["2"]
    fit(network(OPTIONS), SPLITS, seed=3, folder=tmp_path / "one")
    one, two = (read_metrics(tmp_path / name) for name in ("one", "two"))
    for name in ("loss", "validation_loss", "gradient_norm"):
        np.testing.assert_allclose(two[name], one[name], rtol=2e-5)


def test_as_many_devices_as_divide_the_batch_share_it(monkeypatch, capsys):
    devices = jax.local_devices() * 4
    monkeypatch.setattr(jax, "devices", lambda: devices)
    # Four are used, of which there is one.
    with pytest.raises(jax.errors.JaxRuntimeError, match="1 vs. 4"):
        fit(network(replace(OPTIONS, batch_size=8)), SPLITS, seed=0)
    assert capsys.readouterr().err == ""
    fit(network(replace(OPTIONS, batch_size=7)), SPLITS, seed=0)
    assert "a batch of 7 uses 1 of 4 devices" in capsys.readouterr().err


def steps_of(options, slopes, values=None):
    """Parameters after each update from given gradients."""
    transform = descent.optimizer(options)
    params = {"w": jnp.zeros(3)}
    state, found = transform.init(params), []
    update = jax.jit(lambda g, s, p, v: transform.update({"w": g}, s, p, value=v))
    for k, slope in enumerate(slopes):
        value = 1.0 if values is None else values[k]
        updates, state = update(slope, state, params, value)
        params = optax.apply_updates(params, updates)
        found.append(np.asarray(params["w"]))
    return np.array(found)


PLAIN = Descent(steps=100, learning_rate=0.1, schedule="constant", warmup=0.0, clip=1e9)


def test_adam_against_its_formula():
    """Kingma and Ba, arXiv 1412.6980, algorithm 1, in float64."""
    slopes = np.random.default_rng(0).normal(size=(7, 3))
    w, m, v, expected = np.zeros(3), np.zeros(3), np.zeros(3), []
    for t, g in enumerate(slopes, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        expected.append(w)
    np.testing.assert_allclose(steps_of(PLAIN, slopes), expected, rtol=2e-5)


def test_a_long_gradient_is_clipped_and_a_short_one_is_not():
    """The second step tells: Adam's first is blind to the length."""
    short, long = np.array([0.3, 0.0, 0.4]), np.array([30.0, 0.0, 40.0])
    clipped = steps_of(replace(PLAIN, clip=0.5), [short, long])
    np.testing.assert_allclose(clipped, steps_of(PLAIN, [short, short]), rtol=1e-6)
    assert not np.allclose(steps_of(PLAIN, [short, long])[1], clipped[1])


def test_accumulated_batches_make_the_step_of_their_mean():
    slopes = np.random.default_rng(1).normal(size=(6, 3))
    found = steps_of(replace(PLAIN, accumulate=3), slopes)
    means = steps_of(PLAIN, slopes.reshape(2, 3, 3).mean(1))
    assert not found[:2].any()
    np.testing.assert_allclose(found[[2, 5]], means, rtol=1e-5)


def test_the_cosine_rises_and_ends_at_zero():
    """Adam moves by the rate itself while the gradient stays the same."""
    options = replace(PLAIN, schedule="cosine", warmup=0.1)
    moved = -np.diff(steps_of(options, np.ones((100, 3)))[:, 0], prepend=0.0)
    t = np.arange(100)
    expected = 0.1 * np.where(t < 10, t / 10, 0.5 * (1 + np.cos(np.pi * (t - 10) / 90)))
    np.testing.assert_allclose(moved, expected, atol=2e-5)


def test_the_rate_halves_on_a_plateau_only():
    options = replace(PLAIN, schedule="plateau", plateau=5)
    falling = -np.diff(steps_of(options, np.ones((40, 3)), 0.9 ** np.arange(40))[:, 0])
    np.testing.assert_allclose(falling, 0.1, rtol=1e-3)
    flat = -np.diff(steps_of(options, np.ones((40, 3)), np.ones(40))[:, 0])
    ratios = flat[1:] / flat[:-1]
    np.testing.assert_allclose(ratios[ratios < 0.9], 0.5, rtol=1e-3)
    assert 3 <= (ratios < 0.9).sum() <= 7


def test_the_mean_over_held_out_rows_does_not_depend_on_the_batch(tmp_path):
    """13 rows in batches of 8: the filled-up rows do not count."""
    losses = []
    for size in (8, 13, 64):
        objective = network(replace(OPTIONS, batch_size=size))
        state = objective.init(jax.random.PRNGKey(0), SPLITS["train"])
        losses.append(float(objective.evaluate(state, SPLITS["validation"])["loss"]))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"steps": 0}, "--descent.steps: is 0"),
        ({"learning_rate": -1.0}, "--descent.learning-rate: is -1"),
        ({"learning_rate": float("nan")}, "is nan"),
        ({"accumulate": 0}, "--descent.accumulate"),
        ({"evaluate_every": 0, "patience": 2}, "needs evaluations"),
    ],
)
def test_options_out_of_range_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        network(replace(OPTIONS, **change))


def test_every_step_draws_its_own_noise():
    objective = network(OPTIONS)
    state = objective.init(jax.random.PRNGKey(0), SPLITS["train"])
    one, two = (
        float(objective.step(state._replace(step=jnp.int32(k)), SPLITS["train"])[1]["loss"])
        for k in (0, 1)
    )
    assert one != two


def test_the_log_holds_numbers_only(tmp_path):
    fit(network(OPTIONS), SPLITS, seed=0, folder=tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 24 + 5  # and no clock, so that two runs leave the same bytes
    assert set(json.loads(lines[0])) == {"step", "loss", "gradient_norm"}
