"""Patches make whole maps again, mirrors are mirrors, and a network learns what can be seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from physml.neutrino import nets
from physml.neutrino import objective as module
from physml.neutrino.pixelmaps import dense, from_dense, mirror, patches
from physml.options import Descent
from physml.train import fit

pytestmark = pytest.mark.usefixtures("quick_compilation")
NETWORK = nets.SparsePatchTransformer(classes=2, width=16, layers=1, dropout=0.0)


def maps(n=12, seed=0):
    random = np.random.default_rng(seed)
    images = np.where(random.random((n, 2, 100, 80)) < 0.002, random.integers(1, 256, 1), 0)
    return images.astype(np.uint8)


def batch(images, limit=48):
    found = patches(from_dense(images), limit=limit)
    return {name: jnp.asarray(getattr(found, name)) for name in ("tokens", "place", "mask")}


def test_whole_maps_hold_every_pixel():
    images = maps()
    assert_array_equal(module.whole_maps(batch(images)), images)
    assert_array_equal(module.whole_maps(batch(images, limit=90)), images)


def test_mirrored_patches_are_mirrored_maps():
    images = maps()
    which = np.arange(12) % 2 == 0
    ours = module.whole_maps(module.mirrored(batch(images), jnp.asarray(which)))
    flips = np.column_stack([which, np.zeros(12, bool)])  # view X alone
    assert_array_equal(ours, dense(mirror(from_dense(images), flips)))
    assert_array_equal(ours[1::2], images[1::2])
    assert_array_equal(ours[::2, 0], images[::2, 0, :, ::-1])


def test_cross_entropy_is_minus_log_softmax():
    logits = np.random.default_rng(0).normal(size=(5, 3)) * 20
    chance = np.exp(logits - logits.max(1)[:, None])
    chance /= chance.sum(1)[:, None]
    labels = np.array([0, 2, 1, 1, 0])
    expected = -np.log(chance[np.arange(5), labels])
    assert_allclose(module.cross_entropy(logits, labels), expected, rtol=1e-5)


def tracks(n, seed):
    """Class 1 is a straight track, class 0 as many hits at random."""
    random = np.random.default_rng(seed)
    images, label = np.zeros((n, 2, 100, 80), np.uint8), random.integers(0, 2, n)
    for image, straight in zip(images, label, strict=True):
        for view in image:
            plane = np.arange(30)
            line = 40 + np.round(random.uniform(-1, 1) * plane).astype(int)
            cell = line if straight else random.integers(5, 75, 30)
            view[plane, cell] = random.integers(20, 60, 30)
    return {**batch(images, 64), "label": jnp.asarray(label, jnp.int32)}


@pytest.mark.slow
def test_a_network_learns_tracks_from_scatter():
    options = Descent(steps=80, batch_size=32, learning_rate=5e-3)
    objective = module.objective(NETWORK, options)
    splits = {"train": tracks(384, 0), "validation": tracks(128, 1)}
    splits = {k: {n: np.asarray(a) for n, a in split.items()} for k, split in splits.items()}
    compiled = objective._replace(init=jax.jit(objective.init))  # is quicker than each operation
    found = fit(compiled, splits, seed=0)
    assert objective.evaluate(found.best, splits["validation"])["accuracy"] > 0.95


class Corners:
    """A network whose logits are the first and the last cell of view X, and all other pixels."""

    def init(self, key, maps, train):
        return {"params": jnp.zeros(3)}

    def apply(self, variables, maps, train, rngs):
        first, last = maps[:, 0, 0, 0], maps[:, 0, 0, -1]
        logits = jnp.stack([first, last, maps.sum((1, 2, 3)) - first - last], axis=1)
        return nets.Output(logits + variables["params"], logits)


def test_events_are_mirrored_in_training():
    """The first cell of view X, lit in all events: half of them light the last cell instead."""
    images = np.zeros((200, 2, 100, 80), np.uint8)
    images[:, 0, 0, 0] = 200
    objective = module.objective(Corners(), Descent(steps=1, batch_size=200), noise=0.0)
    rows = {**batch(images, 8), "label": jnp.zeros(200, jnp.int32)}
    state, step = objective.init(jax.random.PRNGKey(0), rows), jax.jit(objective.step)
    first, last = (step(state, {**rows, "label": rows["label"] + k})[1] for k in (0, 1))
    assert 0.3 < first["accuracy"] < 0.7
    assert first["accuracy"] + last["accuracy"] == pytest.approx(1)


def test_occlusion_falls_where_the_network_looks():
    """A network without attention to one view: hiding that view changes nothing."""
    rows = {k: np.asarray(v) for k, v in tracks(1, 2).items()}
    first = {k: rows[k] for k in ("tokens", "place", "mask")}
    init = jax.jit(NETWORK.init, static_argnames="train")
    params = init(jax.random.PRNGKey(0), *first.values(), train=False)["params"]
    found = module.occlusion(NETWORK, params, first, label=1)
    image = np.asarray(module.whole_maps({k: jnp.asarray(v) for k, v in first.items()}))[0]
    assert found.shape == image.shape and np.isfinite(found).all() and found.any()
    hidden = image.reshape(2, 25, 4, 20, 4).any(axis=(2, 4))
    touched = found.reshape(2, 25, 4, 20, 4).any(axis=(2, 4))
    assert (touched | ~hidden)[:, :24].mean() > 0.99  # every hit patch lies in a hidden square
    # By hand: the square at the first patch.
    view, row, column = np.argwhere(hidden)[0]
    out = image.copy()
    top, left = row // 2 * 2 * 4, column // 2 * 2 * 4
    out[view, top : top + 8, left : left + 8] = 0
    limit = first["mask"].shape[1]

    def chance(picture):
        seen = {k: np.asarray(v) for k, v in batch(picture[None], limit).items()}
        logits = module.predict(NETWORK, params, seen).logits
        return jax.nn.log_softmax(logits)[0, 1]

    assert_allclose(found[view, top, left], chance(image) - chance(out), atol=2e-5)
