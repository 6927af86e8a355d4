"""Training and use of a network that scores edges: loss, weights of edges, scores of a graph.

Batches hold g graphs padded to one size: nodes (g, n, F), edges (g, m, D), senders and receivers
(g, m) int32, label (g, m) float32 0 or 1, weight (g, m) float32, 0 for edges that do not count.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int64

from physml import descent, export
from physml.errors import ConfigError, DataError
from physml.options import Descent, EdgeLoss, EdgeWeight
from physml.tracking.events import Collision, Particles, pt
from physml.tracking.graphs import bucket
from physml.tracking.nets import Graph, GraphLike
from physml.train import Batch, Objective

INPUTS = Graph._fields


class Labels(Protocol):
    """What `edge_weights` reads of `graphs.EdgeLabels`."""

    @property
    def label(self) -> Any: ...  # noqa: D102
    @property
    def counted(self) -> Any: ...  # noqa: D102


def objective(network: Any, options: Descent, loss: EdgeLoss = EdgeLoss()) -> Objective:  # noqa: B008
    """Mean over graphs of the weighted mean loss of their edges.

    Metrics of a step and of the validation split: the loss; efficiency, the share of true edges
    with a score above 0.5; purity, the share of true ones among the edges above it. The last two
    count edges with weight above 0, each once; a graph without such edges gives 0.

    Args:
        network: a module of `physml.tracking.nets`.
        options: of the gradient descent.
        loss: see `EdgeLoss`.

    Raises:
        ConfigError: an option is out of range.
        DataError: (from `init`) a training graph has no edge that counts.
    """
    if loss.gamma < 0 or not loss.positive > 0:
        raise ConfigError("loss", f"is {loss}", "give gamma >= 0 and positive > 0")

    def init(key: Any, train: Batch) -> Any:
        empty = np.flatnonzero(~(np.asarray(train["weight"]) > 0).any(axis=1))
        if len(empty):
            what = f"rows {empty[:8].tolist()} of the train split have no edge of weight above 0"
            raise DataError("weight", what, "leave these graphs out, or change the weights")
        first = Graph(*(jnp.asarray(train[name][0]) for name in INPUTS))
        return jax.jit(network.init)(key, first)["params"]  # jit leaves out the scores

    def per_row(params: Any, batch: Batch) -> Mapping[str, Any]:
        graphs = Graph(*(batch[name] for name in INPUTS))
        logits = jax.vmap(lambda graph: network.apply({"params": params}, graph))(graphs)
        weight, true = batch["weight"], batch["label"] > 0.5
        each = edge_loss(logits, true, loss)
        mean = jnp.sum(weight * each, axis=1) / jnp.sum(weight, axis=1)
        true, passed = true & (weight > 0), (logits > 0) & (weight > 0)
        return {
            "loss": mean,
            "efficiency": _share(true & passed, true),
            "purity": _share(true & passed, passed),
        }

    def mean_loss(params: Any, batch: Batch, key: Any) -> tuple[Any, dict[str, Any]]:
        found = {name: jnp.mean(values) for name, values in per_row(params, batch).items()}
        return found.pop("loss"), found

    return descent.objective(options, init, mean_loss, per_row)


def edge_loss(
    logits: Float[Array, "*b"], label: Bool[Array, "*b"], loss: EdgeLoss
) -> Float[Array, "*b"]:
    """-(1 - p)^gamma log p of each edge, where p is the probability given to its label.

    Written with softplus, so that it and its slope stay finite for any logit.
    """
    right = jnp.where(label, logits, -logits)
    each = jnp.exp(-loss.gamma * jax.nn.softplus(right)) * jax.nn.softplus(-right)
    return jnp.where(label, loss.positive * each, each)


def _share(some: Bool[Array, "g m"], of: Bool[Array, "g m"]) -> Float[Array, "g"]:
    return jnp.sum(some, axis=1) / jnp.maximum(jnp.sum(of, axis=1), 1)


def edge_weights(
    graph: GraphLike, collision: Collision, labels: Labels, rules: Sequence[EdgeWeight] = ()
) -> Float32[np.ndarray, "m"]:
    """Weights of edges in the loss: 1, or 0 for those not counted, then each rule in turn.

    A later rule wins over an earlier one, and may give a weight to edges that are not counted.

    Args:
        graph: its nodes are the hits of the collision.
        collision: with truth.
        labels: of the edges.
        rules: see `EdgeWeight`.

    Raises:
        ConfigError: a weight is negative or not finite.
        DataError: the collision has no truth.
    """
    if collision.particle is None or collision.particles is None:
        raise DataError(f"event {collision.event}", "has no truth", "train on events with truth")
    particles, particle = collision.particles, collision.particle
    weights = np.array(labels.counted, np.float32)
    true = np.asarray(labels.label) | ~np.asarray(labels.counted)
    own = np.where(true, particle[np.asarray(graph.senders)], -1)
    hits = np.bincount(particle[particle >= 0], minlength=len(particles.pdg))
    for rule in rules:
        if not 0 <= rule.weight < np.inf:
            raise ConfigError("weight", f"of edges is {rule.weight}", "give 0 or more")
        meets = np.append(_meets(rule, particles, hits), rule == _without_particle(rule))
        kind = True if rule.label is None else true == rule.label
        weights[kind & meets[own]] = rule.weight  # false edges have the last place, -1
    return weights


def _meets(
    rule: EdgeWeight, particles: Particles, hits: Int64[np.ndarray, "p"]
) -> Bool[np.ndarray, "p"]:
    found = np.ones(len(hits), bool)
    if rule.pt is not None:
        momentum = pt(particles.momentum)
        found &= (momentum >= rule.pt[0]) & (momentum < rule.pt[1])
    if rule.hits is not None:
        found &= (hits >= rule.hits[0]) & (hits <= rule.hits[1])
    if rule.pdg is not None:
        found &= np.isin(particles.pdg, rule.pdg)
    if rule.not_pdg is not None:
        found &= ~np.isin(particles.pdg, rule.not_pdg)
    return found


def _without_particle(rule: EdgeWeight) -> EdgeWeight:
    """The rule without its conditions on the particle, which no false edge meets."""
    return EdgeWeight(rule.weight, rule.label)


def score(network: Any, params: Any, graph: GraphLike) -> Float32[np.ndarray, "m"]:
    """Scores of the edges of a graph, 0 to 1.

    The graph is padded to one of few sizes (see `graphs.bucket`), and each size is compiled once.

    Args:
        network: a module of `physml.tracking.nets`.
        params: its weights.
        graph: not padded, or padded: padded edges get a score too.

    Raises:
        DataError: an edge joins nodes that are not there, or a feature is not finite.
        ConfigError: the network was made for other features.
    """
    found = checked(graph, params)
    n, m = len(found.nodes), len(found.edges)
    if m == 0:
        return np.empty(0, np.float32)
    more_nodes, more_edges = bucket(n + 1) - n, bucket(m) - m
    # Padded edges join padding nodes, so that no hit hears of them, and many, for scatter-adds
    # to one place wait for each other on a GPU.
    filler = n + np.arange(more_edges) * more_nodes // max(more_edges, 1)
    padded = Graph(
        np.pad(found.nodes, ((0, more_nodes), (0, 0))),
        np.pad(found.edges, ((0, more_edges), (0, 0))),
        np.concatenate([found.senders, filler]).astype(np.int32),
        np.concatenate([found.receivers, filler]).astype(np.int32),
    )
    return np.asarray(_score(network, params, padded))[:m]


def scorer(network: Any, params: Any) -> tuple[Callable[..., Array], dict[str, Any]]:
    """Scores as a function for `physml.export`, and its arguments, of any size.

    The arguments are those of the edge classifiers in ACTS, in their order: node features (n, F)
    float32, edge index (2, m) of senders and receivers, edge features (m, D) float32. The result
    is one score per edge. Activations are float32 and sums go by scatter, whatever the training.
    """
    plain = network.clone(dtype=jnp.float32, sums="scatter", blocks=1, recompute=False)

    def scores(nodes: Array, edge_index: Array, edges: Array) -> Array:
        graph = Graph(nodes, edges, edge_index[0], edge_index[1])
        return jax.nn.sigmoid(plain.apply({"params": params}, graph))

    width = {k: params[f"encode_{k}"]["Dense_0"]["kernel"].shape[0] for k in ("nodes", "edges")}
    return scores, export.arguments(
        nodes=(f"hits, {width['nodes']}", jnp.float32),
        edge_index=("2, pairs", jnp.int32),
        edges=(f"pairs, {width['edges']}", jnp.float32),
    )


@functools.partial(jax.jit, static_argnums=0)
def _score(network: Any, params: Any, graph: Graph) -> Array:
    return jax.nn.sigmoid(network.apply({"params": params}, graph))


def checked(graph: GraphLike, params: Any) -> Graph:
    """The four arrays of a graph that fits the network, as float32 and int32 on the host.

    Raises:
        DataError: an edge joins nodes that are not there, or a feature is not finite.
        ConfigError: the network was made for other features.
    """
    nodes, edges = np.asarray(graph.nodes, np.float32), np.asarray(graph.edges, np.float32)
    ends = [np.asarray(graph.senders), np.asarray(graph.receivers)]
    for name, features in (("nodes", nodes), ("edges", edges)):
        if not np.isfinite(features).all():
            row = np.flatnonzero(~np.isfinite(features).all(axis=1))[0]
            raise DataError(f"graph {name}", f"row {row} is not finite", "check the hits")
        made_for = params[f"encode_{name}"]["Dense_0"]["kernel"].shape[0]
        if features.ndim != 2 or features.shape[1] != made_for:
            what = f"have shape {features.shape}, but the network was made for {made_for} features"
            raise ConfigError(f"graph {name}", what, "build graphs as those it was trained on")
    for name, node in zip(("senders", "receivers"), ends, strict=True):
        if node.shape != (len(edges),) or node.dtype.kind not in "iu":
            what = f"has shape {node.shape} and type {node.dtype} for {len(edges)} edges"
            raise DataError(f"graph {name}", what, "give one integer per edge")
        if len(node) and not (node.min() >= 0 and node.max() < len(nodes)):
            what = f"go from {node.min()} to {node.max()}, but there are {len(nodes)} nodes"
            raise DataError(f"graph {name}", what, "number the nodes from 0")
    return Graph(nodes, edges, *(node.astype(np.int32) for node in ends))
