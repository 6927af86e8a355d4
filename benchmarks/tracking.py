"""Tracking beside torch and by its stages.

    python benchmarks/tracking.py [--quick] [layer] [stages] [memory]

layer: one message-passing step, forward and backward, 20,000 nodes and 200,000 edges, one thread,
CPU time, paired runs. torch gets our weights: once with (edge, sender, receiver) concatenated, as
acorn and PyG networks do, once with our split of the first layer. Gradients go to weights, nodes
and edges.
stages: a collision of 10,000, 30,000 and 100,000 hits, simulation to fitted tracks, all cores.
memory: peak of one training step at 100,000 hits and 1,000,000 edges, in a process of its own.

On Linux glibc gets fresh arrays from the system page by page; GLIBC_TUNABLES=glibc.malloc.hugetlb=1
lets it take large pages. Both sides get it: the script starts itself again with it.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

PAGES = "glibc.malloc.hugetlb=1"


def again(arguments: list[str], **environment: str) -> int:
    """Run this script in a process of its own: glibc and XLA read its environment at its start."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, env={**os.environ, **environment}).returncode


def layer(quick: bool) -> None:
    from timing import pin_threads

    pin_threads()
    try:
        import torch
    except ImportError:
        sys.exit("torch: not installed, nothing to compare with; pip install torch")
    torch.set_num_threads(1)
    print(f"{'CPU ms, forward and backward':<34}{'ours':>9}{'torch':>9}{'ratio':>8}")
    for width in (64, 128):
        compare(torch, width, quick)


def compare(torch: Any, width: int, quick: bool) -> None:
    """One width: largest difference, then both peers."""
    import numpy as np
    from timing import paired

    rng = np.random.default_rng(0)
    n, m = 20_000, 200_000
    nodes, edges = (rng.normal(size=(k, width)).astype(np.float32) for k in (n, m))
    ends = rng.integers(0, n, m).astype(np.int32), np.sort(rng.integers(0, n, m)).astype(np.int32)
    mine, params = ours(width, nodes, edges, ends)
    expected = mine()
    for name, split, target in (("concatenation", False, 2.5), ("the same split", True, 1.3)):
        peer = theirs(torch, params, nodes, edges, ends, split)
        error = max(
            float(np.abs(np.asarray(a) - b).max() / np.abs(b).max())
            for a, b in zip(expected, peer(), strict=True)
        )
        if not error < 1e-4:
            sys.exit(f"torch with {name}: differs by {error:.1e}; nothing is timed")
        pair = paired(mine, peer, 3 if quick else 9)
        met = "ok" if pair.ratio >= target else "MISSED"
        times = f"{1e3 * pair.ours.cpu:9.0f}{1e3 * pair.peer.cpu:9.0f}{pair.ratio:7.2f}x"
        print(f"width {width}, {name:<24}{times} (>= {target:g}x {met})", flush=True)


def ours(width: int, nodes: Any, edges: Any, ends: Any) -> tuple[Callable[[], Any], Any]:
    """Gradients of the sum of squares of what the step gives; they end with nodes and edges."""
    import jax
    import jax.numpy as jnp

    from physml.tracking.nets import Ends, Step

    step = Step(width, 2, True, 1)
    at = [Ends(jnp.asarray(end)) for end in ends]
    params = jax.jit(step.init)(jax.random.PRNGKey(0), nodes, edges, *at)
    params = jax.tree.map(lambda w: w + 0.01, params)

    def loss(params: Any, nodes: Any, edges: Any) -> Any:
        x, e = step.apply(params, nodes, edges, *at)
        return jnp.sum(x * x) + jnp.sum(e * e)

    slope = jax.jit(jax.grad(loss, (0, 1, 2)))
    values = jax.device_put((nodes, edges))

    def run() -> Any:
        found = jax.block_until_ready(slope(params, *values))
        return found[0]["params"]["edge"]["Dense_0"]["kernel"], found[1], found[2]

    return run, params["params"]


def theirs(
    torch: Any, params: Any, nodes: Any, edges: Any, ends: Any, split: bool
) -> Callable[[], Any]:
    """The same by torch, run eagerly; weights in (in, out) layout, as matrices on the right."""
    import jax
    import numpy as np

    tf = torch.nn.functional
    leaf = lambda a: torch.tensor(np.asarray(a), requires_grad=True)
    w = jax.tree.map(leaf, params)
    x, e = leaf(nodes), leaf(edges)
    senders, receivers = (torch.tensor(end).long() for end in ends)
    first, rest, node = w["edge"]["Dense_0"], w["edge"]["Perceptron_0"]["NormedDense_0"], w["node"]
    everything = [x, e, *jax.tree.leaves(w)]

    def normed(y: Any, w: Any) -> Any:
        y = torch.addmm(w["bias"], y, w["kernel"])
        return tf.layer_norm(y, y.shape[-1:], w["scale"], w["shift"], 1e-6)

    def hidden() -> Any:
        sending, receiving = w["sending"]["kernel"], w["receiving"]["kernel"]
        if not split:
            kernel = torch.cat([first["kernel"], sending, receiving])
            joined = torch.cat([e, x[senders], x[receivers]], 1)
            return torch.addmm(first["bias"], joined, kernel)
        own = torch.addmm(first["bias"], e, first["kernel"])
        return own + (x @ sending)[senders] + (x @ receiving)[receivers]

    def run() -> Any:
        for tensor in everything:
            tensor.grad = None
        messages = normed(tf.silu(hidden()), rest)
        sums = [torch.zeros_like(x).index_add(0, at, messages) for at in (receivers, senders)]
        inner = node["Dense_0"]
        around = torch.addmm(inner["bias"], torch.cat([x, *sums], 1), inner["kernel"])
        new_x, new_e = x + normed(tf.silu(around), node["NormedDense_0"]), e + messages
        ((new_x * new_x).sum() + (new_e * new_e).sum()).backward()
        return [tensor.grad.numpy() for tensor in (first["kernel"], x, e)]

    return run


def stages(quick: bool) -> None:
    """Wall seconds of each stage by the size of the collision; the network is not trained.

    An untrained network would leave no tracks to be found, so tracks are built from scores that
    are made: 0.6 to 1 for true edges, and for one false edge in a hundred.
    """
    import jax
    import numpy as np

    from physml.tracking import edge_metrics, geometry, graphs, simulate, tracks
    from physml.tracking.events import Target
    from physml.tracking.nets import InteractionNetwork
    from physml.tracking.objective import score

    detector, network = geometry.trackml(), InteractionNetwork(64, 4)
    rows, names = [], ("simulate", "graph", "score", "tracks", "fit", "all")
    print(f"{'hits':>9}{'edges':>10}" + "".join(f"{name + ', s':>13}" for name in names))
    for mu in (14.0, 48.0) if quick else (14.0, 48.0, 180.0):
        collision, first = clocked(lambda: simulate.simulate((0, 1), mu, detector))  # noqa: B023
        graph = graphs.build_graph(collision.hits, detector)
        second = min(
            clocked(lambda: graphs.build_graph(collision.hits, detector))[1]  # noqa: B023
            for _ in range(3)
        )
        params = network.init(jax.random.PRNGKey(0), small(graph))["params"]
        score(network, params, graph)  # compiles
        _, third = clocked(lambda: score(network, params, graph))  # noqa: B023
        rng = np.random.default_rng(0)
        labels = graphs.edge_labels(graph, collision, Target())
        kept = labels.label.sum() / edge_metrics.target_edges(collision, Target())
        true = labels.label | ~labels.counted
        high = true | (rng.random(len(true)) < 0.01)
        made = np.where(high, rng.uniform(0.6, 1.0, len(true)), 0.01)
        found, fourth = clocked(lambda: tracks.build_tracks(graph, made))  # noqa: B023
        _, fifth = clocked(lambda: fitted(found, collision.hits, detector))  # noqa: B023
        times = [first, second, third, fourth, fifth]
        rows.append([len(graph.nodes), *times, sum(times[1:])])
        counts = f"{len(graph.nodes):9d}{len(graph.edges):10d}"
        print(counts + "".join(f"{t:13.2f}" for t in rows[-1][1:]), flush=True)
    if not quick:
        says = [f"{kept:.4f} of target edges (>= 0.99 {'ok' if kept >= 0.99 else 'MISSED'})"]
        says += [f"{len(graph.edges)} edges (<= 1,000,000 {verdict(len(graph.edges), 1e6)})"]
        says += [f"graph in {second:.2f} s, best of 3 (<= 1.5 s {verdict(second, 1.5)})"]
        print("; ".join(says))
    ratio = np.log(np.array(rows[-1]) / np.array(rows[0]))
    print(f"{'time ~ hits to the':>19}" + "".join(f"{x:13.2f}" for x in ratio[1:] / ratio[0]))
    met = "" if quick else f" (<= 10 s {'ok' if rows[-1][-1] <= 10 else 'MISSED'})"
    print(
        f"hits to fitted tracks, {rows[-1][0]} hits: {rows[-1][-1]:.1f} s{met}; without simulation"
    )


def fitted(found: Any, hits: Any, detector: Any) -> Any:
    """Fit, and taking out of hits and tracks, as the experiment does."""
    from physml.tracking import fits

    return fits.reject_outliers(found, hits, detector, fits.fit(found, hits, detector))


def verdict(value: float, limit: float) -> str:
    return "ok" if value <= limit else "MISSED"


def small(graph: Any) -> Any:
    """A graph of the same features without edges between hits, enough to make weights for."""
    return graph._replace(
        nodes=graph.nodes[:2], edges=graph.edges[:1], senders=graph.senders[:1] * 0,
        receivers=graph.receivers[:1] * 0,
    )  # fmt: skip


def clocked(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def memory(quick: bool) -> None:
    """Peak resident memory of one training step, for the networks that the project trains."""
    sizes = ("10000", "100000") if quick else ("100000", "1000000")
    for width, steps, recompute, blocks in ((64, 4, 0, 1), (64, 4, 1, 1), (128, 8, 1, 8)):
        options = [str(value) for value in (*sizes, width, steps, recompute, blocks)]
        again(["one-step", *options], GLIBC_TUNABLES=PAGES)


def one_step(n: int, m: int, width: int, steps: int, recompute: int, blocks: int) -> None:
    import numpy as np

    from physml.options import Descent
    from physml.tracking.nets import InteractionNetwork
    from physml.tracking.objective import objective
    from physml.train import fit

    rng = np.random.default_rng(0)
    rows = {
        "nodes": rng.normal(size=(1, n, 6)).astype(np.float32),
        "edges": rng.normal(size=(1, m, 6)).astype(np.float32),
        "senders": rng.integers(0, n, (1, m)).astype(np.int32),
        "receivers": np.sort(rng.integers(0, n, (1, m))).astype(np.int32),
        "label": (rng.random((1, m)) < 0.02).astype(np.float32),
        "weight": np.ones((1, m), np.float32),
    }
    network = InteractionNetwork(width, steps, recompute=bool(recompute), blocks=blocks)
    made = objective(network, Descent(steps=1, batch_size=1))
    start = time.process_time()
    fit(made, {"train": rows}, seed=0)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    options = f"width {width}, {steps} steps, recompute {bool(recompute)}, {blocks} blocks"
    met = "ok" if peak < 16 else "MISSED"
    print(f"training step, {n} hits, {m} edges, {options}:", end=" ")
    print(f"{peak:.1f} GiB (< 16 {met}), {seconds:.0f} CPU s with compilation", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["one-step"]:
        return one_step(*map(int, sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="layer, stages, memory; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, smaller graphs")
    options = parser.parse_args()
    if PAGES not in os.environ.get("GLIBC_TUNABLES", ""):
        sys.exit(again(sys.argv[1:], GLIBC_TUNABLES=PAGES))
    known = {"layer": layer, "stages": stages, "memory": memory}
    for part in options.parts or known:
        known[part](options.quick)


if __name__ == "__main__":
    main()
