"""Training a classifier of pixel maps: cross-entropy on patches, with symmetric augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from physml import descent
from physml.neutrino.nets import PLACES, Output, SparsePatchTransformer
from physml.options import Descent
from physml.train import Batch, Objective, in_batches

PATCH = 4  # pixels along each side


def objective(network: Any, options: Descent, noise: float = 0.01) -> Objective:
    """Mean cross-entropy over events; batches hold tokens, place, mask (see `patches`) and label.

    Every event is mirrored in x with even odds and its pixels are multiplied by 1 + `noise` times
    a normal number. The detector looks the same from both sides; it does not upside down, for
    cosmic rays come from above and the beam points up, so y is left alone.

    Args:
        network: a module of `physml.neutrino.nets`.
        options: of the gradient descent.
        noise: relative spread of the pixels; 1 % as published (arXiv 1604.01444).
    """

    def init(key: Any, train: Batch) -> Any:
        few = {name: jnp.asarray(train[name][:1]) for name in ("tokens", "place", "mask")}
        return network.init(key, *inputs(network, few), train=False)["params"]

    def loss(params: Any, batch: Batch, key: Any) -> tuple[Any, dict[str, Any]]:
        mirror, smear, drop = jax.random.split(key, 3)
        changed = mirrored(batch, jax.random.bernoulli(mirror, shape=batch["label"].shape))
        tokens = changed["tokens"] * (1.0 + noise * jax.random.normal(smear, batch["tokens"].shape))
        seen = inputs(network, {**changed, "tokens": tokens})
        logits = network.apply({"params": params}, *seen, train=True, rngs={"dropout": drop}).logits
        right = jnp.mean(jnp.argmax(logits, -1) == batch["label"])
        return jnp.mean(cross_entropy(logits, batch["label"])), {"accuracy": right}

    def per_row(params: Any, batch: Batch) -> Mapping[str, Any]:
        logits = network.apply({"params": params}, *inputs(network, batch), train=False).logits
        right = jnp.argmax(logits, -1) == batch["label"]
        return {"loss": cross_entropy(logits, batch["label"]), "accuracy": right}

    return descent.objective(options, init, loss, per_row)


def predict(network: Any, params: Any, rows: Batch, batch_size: int = 64) -> Output:
    """Logits and embeddings of all rows, as NumPy arrays."""

    @jax.jit
    def apply(batch: Batch) -> Mapping[str, Any]:
        found = network.apply({"params": params}, *inputs(network, batch), train=False)
        return dict(found._asdict())

    seen = {name: rows[name] for name in ("tokens", "place", "mask")}
    found: dict[str, Any] = dict(in_batches(apply, seen, batch_size))
    return Output(**found)


def cross_entropy(logits: Float[Array, "n k"], labels: Any) -> Float[Array, " n"]:
    """-log of the probability given to the label."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -chosen[:, 0]


def inputs(network: Any, batch: Batch) -> tuple[Any, ...]:
    """What a network is called with: patches as they are, or the whole maps made of them."""
    if isinstance(network, SparsePatchTransformer):
        return batch["tokens"], batch["place"], batch["mask"]
    return (whole_maps(batch),)


def whole_maps(batch: Batch) -> UInt8[Array, "n 2 100 80"] | Float[Array, "n 2 100 80"]:
    """Dense maps from patches; what the patches hold is all there is."""
    tokens = jnp.where(batch["mask"][..., None], batch["tokens"], 0)
    n, (views, rows, columns) = len(tokens), PLACES
    # Masked patches go one place beyond the end, where `mode="drop"` leaves them out.
    place = jnp.where(batch["mask"], batch["place"], views * rows * columns)
    empty = jnp.zeros((n, views * rows * columns, PATCH * PATCH), tokens.dtype)
    full = empty.at[jnp.arange(n)[:, None], place].set(tokens, mode="drop")
    split = full.reshape(n, views, rows, columns, PATCH, PATCH)
    return split.transpose(0, 1, 2, 4, 3, 5).reshape(n, views, rows * PATCH, columns * PATCH)


def mirrored(batch: Batch, which: Any) -> dict[str, Any]:
    """The batch with the cells of view X of some events in reverse order."""
    columns = PLACES[2]
    in_x = batch["place"] < PLACES[1] * columns
    turn = which[:, None] & in_x
    column = batch["place"] % columns
    place = jnp.where(turn, batch["place"] - column + (columns - 1 - column), batch["place"])
    shape = batch["tokens"].shape
    reverse = batch["tokens"].reshape(*shape[:-1], PATCH, PATCH)[..., ::-1].reshape(shape)
    return {**batch, "place": place, "tokens": jnp.where(turn[..., None], reverse, batch["tokens"])}


def occlusion(
    network: Any, params: Any, event: Batch, label: int, block: int = 2
) -> Float[np.ndarray, "2 100 80"]:
    """How much log p(label) of one event falls when a square of patches is hidden.

    Args:
        network: a module of `physml.neutrino.nets`.
        params: its weights.
        event: tokens, place and mask of one event, each with a first axis of 1.
        label: the class that is asked about.
        block: patches along each side of the square.

    Returns:
        Falls of log p, (2, 100, 80), in every pixel of the square that was hidden; zero where
        nothing was to hide.
    """
    views, rows, columns = PLACES
    place = np.asarray(event["place"][0])
    view, rest = np.divmod(place, rows * columns)
    row, column = np.divmod(rest, columns)
    square = (view * rows + row // block) * columns + column // block
    hidden = np.unique(square[event["mask"][0]])
    masks = event["mask"][0] & (square != hidden[:, None])
    repeated = {k: np.repeat(event[k], len(hidden) + 1, axis=0) for k in ("tokens", "place")}
    rows_of = {**repeated, "mask": np.concatenate([event["mask"], masks])}
    chance = jax.nn.log_softmax(predict(network, params, rows_of).logits)[:, label]
    found = np.zeros((views, rows, columns))
    for k, name in enumerate(hidden):
        v, r, c = name // (rows * columns), name // columns % rows * block, name % columns * block
        found[v, r : r + block, c : c + block] = chance[0] - chance[k + 1]
    return found.repeat(PATCH, axis=1).repeat(PATCH, axis=2)
