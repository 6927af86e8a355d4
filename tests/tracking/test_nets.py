"""The interaction network: sums, a layer written out in NumPy, symmetries, gradients, options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from physml.tracking.nets import Graph, InteractionNetwork, ends, take, total

pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = InteractionNetwork(width=8, steps=2)


def graph(n=12, m=41, seed=0):
    """Random edges, sorted by receiver; some nodes have none."""
    rng = np.random.default_rng(seed)
    senders, receivers = rng.integers(0, n - 1, (2, m)).astype(np.int32)
    nodes, edges = rng.normal(size=(n, 4)), rng.normal(size=(m, 5))
    return Graph(nodes.astype(np.float32), edges.astype(np.float32), senders, np.sort(receivers))


def weights(network, like):
    """Some weights: no bias is 0, no scale 1."""
    shapes = jax.eval_shape(network.init, jax.random.PRNGKey(0), like)["params"]
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        spread, middle = leaf.shape[0] ** -0.5, path[-1].key == "scale"
        return (middle + spread * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def logits(network, params, like):
    return np.asarray(jax.jit(network.apply)({"params": params}, like))


@pytest.mark.parametrize("how", ["scatter", "sorted"])
def test_sums_and_gathers_are_those_of_numpy(how):
    rng = np.random.default_rng(0)
    values, nodes = rng.normal(size=(40, 3)), rng.normal(size=(9, 3))
    at = rng.integers(0, 8, 40)  # in no order, nothing at the last node
    expected = np.zeros((9, 3))
    np.add.at(expected, at, values)
    with jax.enable_x64(True):
        where = ends(at, 9, how)
        np.testing.assert_allclose(total(values, where, 9), expected, atol=1e-13)
        np.testing.assert_array_equal(take(nodes, where), nodes[at])
        check_grads(jax.jit(lambda v: jnp.sin(total(v, where, 9))), (values,), 1, modes=["rev"])
        check_grads(jax.jit(lambda x: jnp.sin(take(x, where))), (nodes,), 1, modes=["rev"])


def silu(x):
    return x / (1 + np.exp(-x))


def layer_norm(x, w):
    spread = np.sqrt(((x - x.mean(1, keepdims=True)) ** 2).mean(1, keepdims=True) + 1e-6)
    return (x - x.mean(1, keepdims=True)) / spread * w["scale"] + w["shift"]


def perceptron(x, w):
    """Dense layers with SiLU between them, layer norm after the last."""
    for k in range(len(w) - 1):
        x = silu(x @ w[f"Dense_{k}"]["kernel"] + w[f"Dense_{k}"]["bias"])
    last = w["NormedDense_0"]
    return layer_norm(x @ last["kernel"] + last["bias"], last)


def step_with_concatenation(x, e, senders, receivers, w, outgoing):
    """A step as the papers write it: (edge, sender, receiver) side by side, one matrix."""
    edge = w["edge"]
    kernel = np.concatenate(
        [edge["Dense_0"]["kernel"], w["sending"]["kernel"], w["receiving"]["kernel"]]
    )
    hidden = np.concatenate([e, x[senders], x[receivers]], axis=1) @ kernel
    messages = perceptron(silu(hidden + edge["Dense_0"]["bias"]), edge["Perceptron_0"])
    sums = []
    for at in (receivers, senders)[: 1 + outgoing]:
        sums.append(np.zeros_like(x))
        np.add.at(sums[-1], at, messages)
    return x + perceptron(np.concatenate([x, *sums], axis=1), w["node"]), e + messages


@pytest.mark.parametrize("shared, outgoing, layers", [(True, True, 2), (False, False, 3)])
def test_the_network_is_the_one_with_concatenation(shared, outgoing, layers):
    network = InteractionNetwork(8, 2, layers, shared, outgoing)
    g = graph()
    params = weights(network, g)
    w = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    x, e = (perceptron(a, w[f"encode_{k}"]) for a, k in ((g.nodes, "nodes"), (g.edges, "edges")))
    for k in range(2):
        step = w["step" if shared else f"step{k}"]
        x, e = step_with_concatenation(x, e, g.senders, g.receivers, step, outgoing)
    hidden = silu(e @ w["head"]["kernel"] + w["head"]["bias"])
    expected = (hidden @ w["logit"]["kernel"] + w["logit"]["bias"])[:, 0]
    assert expected.std() > 0.1
    np.testing.assert_allclose(logits(network, params, g), expected, atol=1e-5)


@pytest.mark.parametrize("how", ["scatter", "sorted"])
def test_the_order_of_hits_and_edges_is_without_influence(how):
    network, g = SMALL.clone(sums=how), graph()
    params = weights(network, g)
    rng = np.random.default_rng(2)
    node, edge = rng.permutation(12), rng.permutation(41)
    new = np.argsort(node).astype(np.int32)  # old row -> new row
    shuffled = Graph(g.nodes[node], g.edges[edge], new[g.senders[edge]], new[g.receivers[edge]])
    found = logits(network, params, shuffled)
    np.testing.assert_allclose(found, logits(network, params, g)[edge], atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 3])
def test_padding_is_without_influence(blocks):
    network, g = SMALL.clone(blocks=blocks), graph()
    params = weights(network, g)
    rng = np.random.default_rng(3)
    fill = np.full(9, 12, np.int32)  # padded edges join padding nodes
    padded = Graph(
        np.concatenate([g.nodes, rng.normal(size=(5, 4)).astype(np.float32)]),
        np.concatenate([g.edges, rng.normal(size=(9, 5)).astype(np.float32)]),
        np.concatenate([g.senders, fill]),
        np.concatenate([g.receivers, fill + 1]),
    )
    found = logits(network, params, padded)[:41]
    np.testing.assert_allclose(found, logits(network, params, g), atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        network = InteractionNetwork(4, 2, dtype=jnp.float64)
        g = graph(5, 9)
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), weights(network, g))
        f = lambda params, nodes: network.apply({"params": params}, g._replace(nodes=nodes))
        check_grads(jax.jit(f), (params, g.nodes.astype(float)), 1, atol=1e-5, rtol=1e-5)


@functools.cache
def loss_and_slope(network):
    loss = lambda params: jnp.sum(network.apply({"params": params}, graph()) ** 2)
    return jax.jit(jax.value_and_grad(loss))(weights(SMALL, graph()))


@pytest.mark.parametrize(
    "options",
    [{"recompute": True}, {"blocks": 4}, {"recompute": True, "blocks": 3, "sums": "sorted"}],
    ids=str,
)
def test_options_that_save_memory_change_no_number(options):
    """Neither 4 nor 3 blocks divide the 41 edges."""
    (one, slope), (two, other) = (loss_and_slope(n) for n in (SMALL, SMALL.clone(**options)))
    np.testing.assert_allclose(two, one, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), other, slope)


def test_bfloat16_is_close_and_keeps_its_weights():
    g, half = graph(), SMALL.clone(dtype=jnp.bfloat16)
    params = weights(half, g)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    one, two = logits(SMALL, params, g), logits(half, params, g)
    assert two.dtype == np.float32
    assert 1e-5 < np.abs(one - two).max() < 0.05 * np.abs(one).max()


def test_own_weights_in_every_step():
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(weights(network, graph())))
        for network in (SMALL, SMALL.clone(shared=False), SMALL.clone(steps=1))
    ]
    assert sizes[0] == sizes[2] < sizes[1]


def test_graphs_of_a_batch_do_not_hear_of_each_other():
    one, two = graph(seed=0), graph(seed=4)
    params = weights(SMALL, one)
    both = jax.tree.map(lambda a, b: np.stack([a, b]), one, two)
    found = jax.jit(jax.vmap(lambda g: SMALL.apply({"params": params}, g)))(both)
    for k, g in enumerate((one, two)):
        np.testing.assert_allclose(found[k], logits(SMALL, params, g), atol=1e-5)
