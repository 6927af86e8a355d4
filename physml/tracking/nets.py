"""Interaction network that scores the edges of a graph of hits (arXiv 1612.00222, 2103.06995).

A graph is anything with nodes (n, F), edges (m, D) and senders, receivers (m,), such as jraph's
GraphsTuple; `jax.vmap` takes many of one size. Weights are float32; `dtype` is the type of the
activations, whose sums and norms are taken in float32. Indices outside the graph are clamped or
dropped without a word, as everywhere behind jit: check them before, as `objective.score` does.
"""

# ruff: noqa: D102 (the docstring of a block says what its __call__ does)
from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from physml.nets import Dense

Host = Array | np.ndarray
Sum = Literal["scatter", "sorted"]


class GraphLike(Protocol):
    """What the network reads of a graph."""

    @property
    def nodes(self) -> Any: ...  # noqa: D102
    @property
    def edges(self) -> Any: ...
    @property
    def senders(self) -> Any: ...
    @property
    def receivers(self) -> Any: ...


class Graph(NamedTuple):
    """The four arrays that the network reads of a graph."""

    nodes: Float[Host, "n f"]
    edges: Float[Host, "m d"]
    senders: Int[Host, "m"]
    receivers: Int[Host, "m"]


class Ends(NamedTuple):
    """Node at one end of each edge; for sums without scatter also the edges in its order."""

    node: Int[Array, "m"]
    order: Int[Array, "m"] | None = None  # edges, those of one node beside each other
    start: Int[Array, "n+1"] | None = None  # where those of a node start in `order`


def ends(node: Int[Host, "m"], n: int, how: Sum) -> Ends:
    """The ends of edges at n nodes, ready for `take` and `total`."""
    node = jnp.asarray(node)
    if how == "scatter":
        return Ends(node)
    order = jnp.argsort(node)
    start = jnp.searchsorted(node, jnp.arange(n + 1, dtype=node.dtype), sorter=order)
    return Ends(node, order, start)


def take(x: Float[Array, "n d"], at: Ends) -> Float[Array, "m d"]:
    """Rows of the nodes at the ends of the edges."""
    return _rows(x, at.node) if at.order is None else _take(x, at)


def total(values: Float[Array, "m d"], at: Ends, n: int) -> Float[Array, "n d"]:
    """Sum over the edges of each of n nodes; 0 where there are none.

    By scatter-add, or without it: along the edges in the order of their nodes, a scan that starts
    anew at each node. The scan adds in one fixed order, so that a GPU gives the same bits again.
    """
    if at.order is None:
        return jax.ops.segment_sum(values, at.node, n)
    return _total(values, at)


def _rows(x: Array, index: Array) -> Array:
    return jnp.asarray(x).at[index].get(mode="clip")


@jax.custom_vjp
def _take(x: Array, at: Ends) -> Array:
    return _rows(x, at.node)


@jax.custom_vjp
def _total(values: Array, at: Ends) -> Array:
    assert at.order is not None and at.start is not None  # for the type checker
    node = at.node[at.order]
    begins = jnp.append(True, node[1:] != node[:-1])
    _, running = jax.lax.associative_scan(_restarting, (begins[:, None], values[at.order]))
    some = at.start[1:] > at.start[:-1]
    return jnp.where(some[:, None], _rows(running, at.start[1:] - 1), 0.0)


def _restarting(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    return a[0] | b[0], jnp.where(b[0], b[1], a[1] + b[1])


# Each of the two is the transpose of the other.
_take.defvjp(lambda x, at: (_take(x, at), at), lambda at, slope: (_total(slope, at), None))
_total.defvjp(lambda v, at: (_total(v, at), at), lambda at, slope: (_take(slope, at), None))


class NormedDense(nn.Module):
    """Linear layer, then layer norm (arXiv 1607.06450) with a learned scale and shift.

    The mean over the features is taken out of the weights and not out of every row, which is the
    same and saves passes over the rows.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n h"]:
        h = (self.features,)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], *h))
        bias = self.param("bias", nn.initializers.zeros, h)
        scale = self.param("scale", nn.initializers.ones, h)
        shift = self.param("shift", nn.initializers.zeros, h)
        kernel = kernel - jnp.mean(kernel, axis=1, keepdims=True)
        x = x.astype(self.dtype) @ kernel.astype(self.dtype)
        y = x.astype(_exact(self.dtype)) + (bias - jnp.mean(bias))
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + 1e-6)
        return (y * scale + shift).astype(self.dtype)


class Perceptron(nn.Module):
    """Dense layers of one width with SiLU between them; a layer norm after the last."""

    width: int
    layers: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n h"]:
        for _ in range(self.layers - 1):
            x = nn.silu(Dense(self.width, dtype=self.dtype)(x))
        return NormedDense(self.width, self.dtype)(x)


class Messages(nn.Module):
    """Perceptron of edge, sender and receiver; the first layer's share of the nodes is given."""

    width: int
    layers: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        edges: Float[Array, "m h"],
        senders: Ends,
        receivers: Ends,
        sending: Float[Array, "n h"],
        receiving: Float[Array, "n h"],
    ) -> Float[Array, "m h"]:
        x = Dense(self.width, dtype=self.dtype, init=THIRD)(edges)
        x = nn.silu(x + take(sending, senders) + take(receiving, receivers))
        return Perceptron(self.width, self.layers - 1, self.dtype)(x)


THIRD = nn.initializers.variance_scaling(1 / 3, "fan_in", "truncated_normal")
"""LeCun's initial weights for one of three inputs of one width."""


class Step(nn.Module):
    """One round of messages: edges from their ends, then nodes from the sums of their edges.

    The edge perceptron's first layer acts on nodes before they are gathered, once per node and not
    once per edge. With `blocks` > 1 the edges go through it in that many blocks, one after the
    other, and the backward pass computes each block again.
    """

    width: int
    layers: int
    outgoing: bool
    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, nodes: Float[Array, "n h"], edges: Float[Array, "m h"], senders: Ends, receivers: Ends
    ) -> tuple[Float[Array, "n h"], Float[Array, "m h"]]:
        split = {"bias": False, "dtype": self.dtype, "init": THIRD}
        sending = Dense(self.width, **split, name="sending")(nodes)
        receiving = Dense(self.width, **split, name="receiving")(nodes)
        messages = self._messages(edges, senders, receivers, sending, receiving)
        exact, n = messages.astype(_exact(self.dtype)), nodes.shape[0]
        sums = [total(exact, at, n) for at in (receivers, senders)[: 1 + self.outgoing]]
        around = jnp.concatenate([nodes, *sums], axis=-1)
        change = Perceptron(self.width, self.layers, self.dtype, name="node")(around)
        return nodes + change, edges + messages

    def _messages(self, edges: Any, senders: Ends, receivers: Ends, *projections: Any) -> Any:
        if self.blocks == 1:
            messages = Messages(self.width, self.layers, self.dtype, name="edge")
            return messages(edges, senders, receivers, *projections)
        how: Sum = "scatter" if senders.order is None else "sorted"

        def piecewise(module: Messages, _: None, piece: tuple[Array, ...]) -> tuple[None, Any]:
            senders, receivers = (ends(at, len(projections[0]), how) for at in piece[1:])
            return None, module(piece[0], senders, receivers, *projections)

        pieces = [in_blocks(a, self.blocks) for a in (edges, senders.node, receivers.node)]
        one = nn.remat(Messages)(self.width, self.layers, self.dtype, name="edge")
        scan = nn.scan(piecewise, variable_broadcast="params", split_rngs={"params": False})
        return scan(one, None, tuple(pieces))[1].reshape(-1, self.width)[: len(edges)]


def in_blocks(x: Array, blocks: int) -> Array:
    """(m, ...) -> (blocks, k, ...), filled up with zeros: edges from node 0 to itself."""
    missing = -len(x) % blocks
    return jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)).reshape(blocks, -1, *x.shape[1:])


class InteractionNetwork(nn.Module):
    """Scores edges: encoders, `steps` rounds of messages with residuals, one logit per edge.

    Order of nodes and edges and the amount of padding are without influence, as long as padded
    edges join padding nodes.
    """

    width: int = 64
    steps: int = 4
    layers: int = 2  # of each perceptron, 2 or more for messages
    shared: bool = True  # the same weights in every step
    outgoing: bool = True  # nodes also sum the edges that they send
    recompute: bool = False  # keep the state between steps only (on a CPU: if `shared`)
    blocks: int = 1  # of edges in a step, one after the other, to save memory
    sums: Sum = "scatter"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, graph: GraphLike) -> Float[Array, "m"]:
        n = graph.nodes.shape[0]  # may be a symbol, for export
        senders, receivers = (ends(at, n, self.sums) for at in (graph.senders, graph.receivers))
        x = Perceptron(self.width, self.layers, self.dtype, name="encode_nodes")(graph.nodes)
        e = Perceptron(self.width, self.layers, self.dtype, name="encode_edges")(graph.edges)
        x, e = self._steps(x, e, senders, receivers)
        hidden = nn.silu(Dense(self.width, dtype=self.dtype, name="head")(e))
        return Dense(1, dtype=_exact(self.dtype), name="logit")(hidden)[:, 0]

    def _steps(self, x: Any, e: Any, *at: Ends) -> tuple[Any, Any]:
        make = nn.remat(Step) if self.recompute else Step
        options = self.width, self.layers, self.outgoing, self.blocks, self.dtype
        if not self.shared:
            for k in range(self.steps):
                x, e = make(*options, name=f"step{k}")(x, e, *at)
            return x, e
        step = make(*options, name="step")
        if not self.recompute:
            for _ in range(self.steps):
                x, e = step(x, e, *at)
            return x, e
        # A loop that XLA cannot see through: on a CPU it would merge what is computed twice.
        scan: Any = nn.scan(
            lambda step, state, _: (step(*state, *at), None), length=self.steps,
            variable_broadcast="params", split_rngs={"params": False},
        )  # fmt: skip
        found: tuple[Any, Any] = scan(step, (x, e), None)[0]
        return found


def _exact(dtype: Any) -> Any:
    """The type of sums and norms."""
    return jnp.promote_types(dtype, jnp.float32)
