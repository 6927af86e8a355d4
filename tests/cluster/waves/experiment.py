"""Rows of a wave, a network with noise on its hidden layer, and its error."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from physml import descent
from physml.claims import Claim
from physml.run import Experiment

from .config import PRESETS


def begun(config, where):
    """Say so, and be slow in Python there."""
    if config.tell:
        with open(config.tell, "a") as file:
            print(where, file=file)
    if config.wait == where:
        time.sleep(300)


def rows(seed, n):
    x = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
    return {"x": x, "y": np.sin(x.sum(1)), "group": np.arange(n) // 4}


def load(config):
    begun(config, "load")
    return {"train": rows(config.seed, config.rows), "validation": rows(99, 13)}


def objective(config):
    def init(key, train):
        one, two = jax.random.split(key)
        hidden = jax.random.normal(one, (6, config.width)) / 2
        return {"a": hidden, "b": jax.random.normal(two, (config.width,)) / 4}

    def predict(params, x, noise):
        return jnp.tanh(x @ params["a"] + noise) @ params["b"]

    def loss(params, batch, key):
        begun(config, "compile")  # while it is traced
        noise = 0.1 * jax.random.normal(key, (len(batch["x"]), config.width))
        return jnp.mean((predict(params, batch["x"], noise) - batch["y"]) ** 2), {}

    def per_row(params, batch):
        return {"loss": (predict(params, batch["x"], 0.0) - batch["y"]) ** 2}

    plain = descent.objective(config.descent, init, loss, per_row)

    def evaluate(state, split):
        begun(config, "evaluate")
        time.sleep(config.pause)
        return plain.evaluate(state, split)

    return plain._replace(evaluate=evaluate)


def evaluate(config, state, splits):
    begun(config, "measure")
    split = splits["validation"]
    found = np.tanh(split["x"] @ state.params["a"]) @ state.params["b"]
    error = float(np.mean((found - split["y"]) ** 2))
    return {"numbers": {"error": error}, "arrays": {"found": np.asarray(found)}}


def figures(results):
    from matplotlib.figure import Figure

    return {"empty": Figure()}


EXPERIMENT = Experiment(
    name="waves",
    presets=PRESETS,
    load=load,
    objective=objective,
    evaluate=evaluate,
    figures=figures,
    claims={name: (Claim("error", "", 0.0, 10.0),) for name in PRESETS},
    groups=lambda config, splits: splits["train"]["group"],
)
