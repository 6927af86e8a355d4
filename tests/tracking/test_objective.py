"""Loss, weights and scores of edges; training on one and two devices; the exported scores."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from physml import export
from physml.errors import ConfigError, DataError
from physml.options import Descent, EdgeLoss, EdgeWeight
from physml.record import read_metrics
from physml.tracking.events import Collision, Hits, Particles
from physml.tracking.nets import Graph, InteractionNetwork
from physml.tracking.objective import (
    edge_loss,
    edge_weights,
    objective,
    score,
    scorer,
)
from physml.train import fit

pytestmark = pytest.mark.usefixtures("quick_compilation")
NETWORK = InteractionNetwork(width=8, steps=1)
OPTIONS = Descent(steps=60, batch_size=2, learning_rate=0.02)


def batch(g=4, n=40, m=160, seed=0):
    """An edge is true when feature 0 of its ends has the same sign; the last 10 are padding."""
    rng = np.random.default_rng(seed)
    senders, receivers = rng.integers(0, n, (2, g, m)).astype(np.int32)
    nodes = rng.choice([-1.0, 1.0], (g, n, 2)) + 0.1 * rng.normal(size=(g, n, 2))
    sign = np.sign(nodes[..., 0])
    same = np.take_along_axis(sign, senders, 1) == np.take_along_axis(sign, receivers, 1)
    return {
        "nodes": nodes.astype(np.float32),
        "edges": rng.normal(size=(g, m, 3)).astype(np.float32),
        "senders": senders,
        "receivers": receivers,
        "label": same.astype(np.float32),
        "weight": np.broadcast_to(np.arange(m) < m - 10, (g, m)).astype(np.float32),
    }


SPLITS = {"train": batch(), "validation": batch(2, seed=1)}


def drawn(network=NETWORK, rows=SPLITS["train"]):
    """Random weights of a network."""
    first = Graph(*(rows[name][0] for name in Graph._fields))
    shapes = jax.eval_shape(network.init, jax.random.PRNGKey(0), first)["params"]
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda a: 0.4 * rng.normal(size=a.shape).astype(np.float32), shapes)


def test_cross_entropy_is_that_of_sklearn():
    rng = np.random.default_rng(0)
    logits, label, weight = 3 * rng.normal(size=200), rng.random(200) < 0.3, rng.random(200)
    with jax.enable_x64(True):
        each = np.asarray(edge_loss(logits, label, EdgeLoss()))
        weighted = np.asarray(edge_loss(logits, label, EdgeLoss(positive=3.0)))
    chance = 1 / (1 + np.exp(-logits))
    expected = log_loss(label, chance, sample_weight=weight)
    assert np.average(each, weights=weight) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(weighted, np.where(label, 3, 1) * each, rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_its_formula(gamma):
    """-(1 - p)^gamma log p with p the probability of the label."""
    logits, label = np.linspace(-9, 9, 37), np.arange(37) % 2 == 0
    p = 1 / (1 + np.exp(np.where(label, -logits, logits)))
    with jax.enable_x64(True):
        found = edge_loss(logits, label, EdgeLoss(gamma))
    np.testing.assert_allclose(found, -((1 - p) ** gamma) * np.log(p), rtol=1e-9)


def test_loss_and_slope_are_finite_for_any_logit():
    logits = jnp.array([-1e30, -1e4, 0.0, 1e4, 1e30])
    for label in (True, False):
        for loss in (EdgeLoss(), EdgeLoss(2.0), EdgeLoss(0.5)):
            f = lambda x: edge_loss(x, jnp.full(5, label), loss).sum()  # noqa: B023
            assert np.isfinite(jax.grad(f)(logits)).all()


def test_loss_options_out_of_range_are_refused():
    for loss in (EdgeLoss(gamma=-1.0), EdgeLoss(positive=0.0)):
        with pytest.raises(ConfigError, match="give gamma >= 0 and positive > 0"):
            objective(NETWORK, OPTIONS, loss)


def test_edges_of_weight_0_change_no_step():
    made = objective(NETWORK, OPTIONS)
    state = made.init(jax.random.PRNGKey(0), SPLITS["train"])
    rows = {name: array[:2] for name, array in SPLITS["train"].items()}
    off = rows["weight"] == 0
    other = {**rows, "label": np.where(off, 1 - rows["label"], rows["label"])}
    step = jax.jit(made.step)
    one, two = step(state, rows), step(state, other)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    wrong = step(state, {**rows, "label": 1 - rows["label"]})
    assert float(wrong[1]["loss"]) != float(one[1]["loss"])


def test_metrics_of_a_split_are_those_counted_by_hand():
    made = objective(NETWORK, OPTIONS, EdgeLoss(positive=2.0))
    rows = SPLITS["validation"]
    state = made.init(jax.random.PRNGKey(0), rows)
    params = drawn()
    logits = NETWORK.apply({"params": params}, Graph(*(rows[name][0] for name in Graph._fields)))
    params["logit"]["bias"] -= np.median(logits)  # so that half of the edges pass
    state = state._replace(params=params)
    found = made.evaluate(state, rows)
    losses, efficiency, purity = [], [], []
    for k in range(2):
        graph = Graph(*(rows[name][k] for name in Graph._fields))
        p, true = score(NETWORK, state.params, graph).astype(float), rows["label"][k] > 0
        w = rows["weight"][k]
        losses.append(log_loss(true, p, sample_weight=w * (1 + true)) * (w * (1 + true)).sum())
        losses[-1] /= w.sum()
        passed = (p > 0.5) & (w > 0)
        efficiency.append((passed & true).sum() / (true & (w > 0)).sum())
        purity.append((passed & true).sum() / passed.sum())
    assert 0 < np.mean(efficiency) < 1
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert found["efficiency"] == pytest.approx(np.mean(efficiency), rel=1e-5)
    assert found["purity"] == pytest.approx(np.mean(purity), rel=1e-5)


def test_a_graph_without_counted_edges_is_refused():
    rows = dict(SPLITS["train"])
    rows["weight"] = rows["weight"] * (np.arange(4) != 2)[:, None]
    with pytest.raises(DataError, match=r"rows \[2\] of the train split have no edge of weight"):
        objective(NETWORK, OPTIONS).init(jax.random.PRNGKey(0), rows)


def test_an_easy_rule_is_learned_and_two_devices_agree(tmp_path):
    script = (
        "import sys, jax\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "import test_objective as t\n"
        "made = t.objective(t.NETWORK, t.OPTIONS)\n"
        "t.fit(made, t.SPLITS, 3, t.Path(sys.argv[1]))\n"
        "rows = {k: v[:2] for k, v in t.SPLITS['train'].items()}\n"
        "mesh = jax.sharding.Mesh(jax.devices(), ('rows',))\n"
        "spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('rows'))\n"
        "state = jax.eval_shape(lambda key: made.init(key, rows), jax.random.PRNGKey(0))\n"
        "step = jax.jit(made.step).lower(state, jax.device_put(rows, spread))\n"
        "text = step.compile().as_text()\n"
        "print(len(jax.devices()), text.count(' all-gather('), text.count(' all-reduce('))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "two")],
        capture_output=True, text=True,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    devices, gathers, reductions = map(int, run.stdout.split())
    # Each device works on its own graphs; only sums over the batch go from one to the other.
    assert devices == 2 and gathers == 0 and reductions > 0
    fit(objective(NETWORK, OPTIONS), SPLITS, seed=3, folder=tmp_path / "one")
    one, two = (read_metrics(tmp_path / name) for name in ("one", "two"))
    for name in ("loss", "validation_loss"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3)
    assert one["loss"][0, 1] > 0.6 and one["validation_loss"][-1, 1] < 0.1
    assert one["validation_efficiency"][-1, 1] > 0.97


@functools.cache
def graph():
    return Graph(*(batch(1, 37, 150)[name][0] for name in Graph._fields))


def test_scores_are_the_sigmoid_of_the_logits_whatever_the_padding():
    params = drawn()
    logits = np.asarray(NETWORK.apply({"params": params}, graph()), float)
    found = score(NETWORK, params, graph())
    assert found.dtype == np.float32 and found.std() > 0.05
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=1e-6)
    empty = Graph(graph().nodes, graph().edges[:0], graph().senders[:0], graph().receivers[:0])
    assert score(NETWORK, params, empty).shape == (0,)


def changed(**fields):
    return graph()._replace(**fields)


@pytest.mark.parametrize(
    "wrong, error, text",
    [
        (lambda g: {"senders": g.senders + 37}, DataError, "senders: go from 37 to"),
        (lambda g: {"receivers": g.receivers - 1}, DataError, "receivers: go from -1 to"),
        (lambda g: {"senders": g.senders[:-1]}, DataError, r"has shape \(149,\)"),
        (lambda g: {"senders": g.senders.astype(float)}, DataError, "one integer per edge"),
        (lambda g: {"nodes": np.where(g.nodes > 1, np.nan, g.nodes)}, DataError, "not finite"),
        (lambda g: {"edges": np.full_like(g.edges, np.inf)}, DataError, "edges: row 0 is not fin"),
        (lambda g: {"nodes": g.nodes[:, :1]}, ConfigError, "made for 2 features"),
    ],
)
def test_a_graph_that_does_not_fit_is_refused_in_one_line(wrong, error, text):
    with pytest.raises(error, match=text) as caught:
        score(NETWORK, drawn(), changed(**wrong(graph())))
    assert "\n" not in str(caught.value)


def test_exported_scores_are_those_of_the_network():
    pytest.importorskip("onnxruntime")
    params = drawn()
    function, arguments = scorer(NETWORK.clone(dtype=jnp.bfloat16, blocks=2), params)
    files = export.onnx(function, arguments, "scores"), export.stablehlo(function, arguments)
    for size in ((37, 150), (5, 9)):  # the files know no size
        g = Graph(*(batch(1, *size)[name][0] for name in Graph._fields))
        index = np.stack([g.senders, g.receivers])
        values = {"nodes": g.nodes, "edge_index": index, "edges": g.edges}
        expected = score(NETWORK, params, g)
        np.testing.assert_allclose(export.run_onnx(files[0], values), expected, atol=1e-5)
        np.testing.assert_allclose(export.run_stablehlo(files[1], values), expected, atol=1e-5)


def test_the_onnx_file_has_the_inputs_of_acts():
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(export.onnx(*scorer(NETWORK, drawn()), "scores"))
    kinds = onnx.TensorProto
    inputs = [(i.name, i.type.tensor_type.elem_type) for i in model.graph.input]
    expected = [("nodes", kinds.FLOAT), ("edge_index", kinds.INT64), ("edges", kinds.FLOAT)]
    assert inputs == expected and [o.name for o in model.graph.output] == ["scores"]
    shapes = [
        [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim]
        for i in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["hits", 2], [2, "pairs"], ["pairs", 3], ["pairs"]]
    assert model.opset_import[0].version >= 16


def collision():
    """Hits 0-3 of a pion of 2 GeV, 4-6 of an electron of 0.5 GeV, 7 noise."""
    hits = Hits(np.zeros((8, 3)), np.zeros(8, np.int32), np.zeros(8, np.int32), np.arange(8))
    particles = Particles(
        np.array([5, 9]), np.array([211, 11], np.int32), np.array([1, -1], np.int8),
        np.zeros((2, 3)), np.array([[2.0, 0.0, 1.0], [0.0, 0.5, 3.0]]),
    )  # fmt: skip
    own = np.array([0, 0, 0, 0, 1, 1, 1, -1], np.int32)
    return Collision(1, hits, particles, own)


@pytest.mark.parametrize(
    "rules, expected",
    [
        ((), [1, 0, 1, 1]),  # true of a target, true of none, false, false
        ((EdgeWeight(0.1, label=False),), [1, 0, 0.1, 0.1]),
        ((EdgeWeight(3, pt=(1.0, np.inf)),), [3, 0, 1, 1]),
        ((EdgeWeight(3, pt=(0.0, 1.0)),), [1, 3, 1, 1]),
        ((EdgeWeight(3, hits=(1, 3)),), [1, 3, 1, 1]),
        ((EdgeWeight(3, pdg=(211, -211)),), [3, 0, 1, 1]),
        ((EdgeWeight(3, not_pdg=(211, -211)),), [1, 3, 1, 1]),
        ((EdgeWeight(3, label=True, pt=(5.0, 9.0)),), [1, 0, 1, 1]),
        ((EdgeWeight(2), EdgeWeight(4, label=True, pt=(1.0, 3.0))), [4, 2, 2, 2]),
    ],
)
def test_weights_follow_their_rules(rules, expected):
    edges = SimpleNamespace(senders=np.array([0, 4, 3, 7]), receivers=np.array([1, 5, 4, 0]))
    labels = SimpleNamespace(
        label=np.array([True, False, False, False]), counted=np.array([True, False, True, True])
    )
    found = edge_weights(edges, collision(), labels, rules)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected)


def test_weights_that_make_no_sense_are_refused():
    edges = SimpleNamespace(senders=np.array([0]), receivers=np.array([1]))
    labels = SimpleNamespace(label=np.array([True]), counted=np.array([True]))
    with pytest.raises(ConfigError, match="of edges is -1"):
        edge_weights(edges, collision(), labels, (EdgeWeight(-1.0),))
    with pytest.raises(DataError, match="event 1: has no truth"):
        edge_weights(edges, collision()._replace(particle=None), labels)
