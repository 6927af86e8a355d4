"""Train a graph network on edges, build tracks, and measure both on collisions unseen."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from physml import export
from physml.claims import Claim
from physml.errors import DataError
from physml.run import Experiment, Results
from physml.tracking import baseline, edge_metrics, fits, graphs, metrics, plots
from physml.tracking.events import Collision, Tracks
from physml.tracking.nets import InteractionNetwork
from physml.tracking.objective import objective as classifier
from physml.tracking.objective import score, scorer
from physml.tracking.tracks import build_tracks
from physml.tracking.writers import Found, track_table
from physml.train import Objective, Splits, TrainState

from . import dataset
from .config import PRESETS, Config, check
from .dataset import DETECTOR
from .figures import METHODS, STYLE, figures

# On edge scores: even ones for histograms, and ones that lie close near 0 and 1 for curves.
CUTS = np.union1d(np.linspace(0, 1, 51), scipy.special.expit(np.linspace(-15, 15, 301)))
PILE_UP = (0.25, 0.5, 0.75)  # of the mean, for the figure against pile-up
FEWER = 3  # collisions at each of them


class Reconstruction(NamedTuple):
    """What was made of one collision, and how long each stage took."""

    collision: Collision
    graph: Any
    scores: np.ndarray
    tracks: Mapping[str, Tracks]  # by method
    fits: Mapping[str, fits.TrackFit]
    dropped: Mapping[str, tuple[int, int]]  # hits and tracks that the fit took out
    seconds: Mapping[str, float]
    mu: float | None


def load(config: Config) -> Splits:
    """Graphs of train and validation; see `dataset.load`."""
    check(config)
    return dataset.load(config)


def network(config: Config) -> InteractionNetwork:
    """The network that the options name."""
    import jax.numpy as jnp

    dtype = jnp.bfloat16 if config.half else jnp.float32
    return InteractionNetwork(
        width=config.width, steps=config.layers, dtype=dtype,
        recompute=config.recompute, blocks=config.blocks,
    )  # fmt: skip


def objective(config: Config) -> Objective:
    """Loss of the edges by gradient descent."""
    return classifier(network(config), config.descent, config.loss)


def evaluate(config: Config, state: TrainState, splits: Splits) -> Results:
    """Edges and tracks of the test collisions, or of the user's own."""
    if config.hits is not None:
        found = timed(config, state, dataset.own(config))
    else:
        made = dataset.produced(config, "test", config.test)
        found = timed(config, state, made, config.mu)
    results = measured(config, found)
    numbers, arrays, files = dict(results["numbers"]), dict(results["arrays"]), {}
    if config.hits is None:
        means = [share * config.mu for share in PILE_UP]
        others = [
            reconstruct(config, state, collision, mu, None)
            for mu in means
            for collision in dataset.produced(config, "test", FEWER, mu)
        ]
        arrays |= against_pile_up(config, found, others)
    if config.export:
        files, differences = exported(config, state, found)
        numbers |= differences
    return {**results, "numbers": numbers, "arrays": arrays, "files": files}


def exported(
    config: Config, state: TrainState, found: Sequence[Reconstruction]
) -> tuple[dict[str, bytes], dict[str, float]]:
    """The network as ONNX and StableHLO, and how far their scores are from ours in float32."""
    graph = next((r.graph for r in found if len(r.graph.edges)), None)
    if graph is None:
        raise DataError("--export", "has no edges to compare with", "give a collision with tracks")
    function, inputs = scorer(network(config), state.params)
    files = {
        "edges.onnx": export.onnx(function, inputs, "scores"),
        "edges.stablehlo": export.stablehlo(function, inputs),
    }
    index = np.stack([graph.senders, graph.receivers]).astype(np.int32)
    values = dict(zip(inputs, (graph.nodes, index, graph.edges), strict=True))
    ours = np.asarray(function(*values.values()))
    onnx = export.run_onnx(files["edges.onnx"], values)
    stablehlo = export.run_stablehlo(files["edges.stablehlo"], values)
    return files, {
        "largest difference of an ONNX score": float(np.abs(onnx - ours).max()),
        "largest difference of a StableHLO score": float(np.abs(stablehlo - ours).max()),
    }


def timed(
    config: Config, state: TrainState, collisions: Iterable[Collision], mu: float | None = None
) -> list[Reconstruction]:
    """What is made of collisions, timed without start-up and compilation."""
    begun: set[Any] = set()
    return [reconstruct(config, state, collision, mu, begun) for collision in collisions]


def reconstruct(
    config: Config,
    state: TrainState,
    collision: Collision,
    mu: float | None,
    begun: set[Any] | None,
) -> Reconstruction:
    """Graph, scores, tracks and fits of one collision; the baseline beside them.

    A stage that is not in `begun`, for scores also each size that is compiled, is run once before
    it is timed; with None nothing is.
    """
    seconds: dict[str, float] = {}

    def timed(stage: str, function: Any, size: Any = None) -> Any:
        if begun is not None and (stage, size) not in begun:
            begun.add((stage, size))
            function()
        start = time.perf_counter()
        result = function()
        seconds[stage] = time.perf_counter() - start
        return result

    hits = collision.hits
    graph = timed("graph", lambda: dataset.graph_of(config, collision))
    size = (graphs.bucket(len(graph.nodes) + 1), graphs.bucket(len(graph.edges)))
    scores = timed("scores", lambda: score(network(config), state.params, graph), size)
    built = timed("tracks", lambda: build_tracks(graph, scores))
    fitted = timed("fit", lambda: cleaned(built, collision))
    asked = baseline.FollowOptions(min_pt=0.9 * config.min_pt, min_hits=3)
    followed = timed("baseline", lambda: cleaned(baseline.follow(hits, DETECTOR, asked), collision))
    both = dict(zip(METHODS, (fitted, followed), strict=True))
    return Reconstruction(
        collision, graph, scores,
        {name: kept.tracks for name, kept in both.items()},
        {name: kept.fit for name, kept in both.items()},
        {name: (k.hits_removed, k.not_fitted + k.bad_chi2) for name, k in both.items()},
        seconds, mu,
    )  # fmt: skip


def cleaned(tracks: Tracks, collision: Collision) -> fits.Rejection:
    """Tracks after the fit has taken wrong hits and bad tracks out."""
    fitted = fits.fit(tracks, collision.hits, DETECTOR)
    return fits.reject_outliers(tracks, collision.hits, DETECTOR, fitted)


def measured(config: Config, found: Sequence[Reconstruction]) -> Results:
    """Numbers, arrays for the figures, and the tracks of the network for a ROOT file."""
    numbers = {
        "collisions": float(len(found)),
        "hits per collision": float(np.mean([len(r.collision.hits.layer) for r in found])),
        "edges per collision": float(np.mean([len(r.scores) for r in found])),
    }
    stages = list(found[0].seconds)
    known = [r for r in found if r.collision.particle is not None]
    arrays = {
        "setting": np.array(setting(config, found)),
        "stage": np.array(stages),
        "seconds": np.array([[r.seconds[stage] for stage in stages] for r in found]),
    }
    if len(known) < len(found):
        text = f"{len(found) - len(known)} of {len(found)} collisions have no truth"
        print(f"{text}: efficiencies and purities are those of the others", file=sys.stderr)
    for method in METHODS:
        numbers |= counted(found, method)
        first = found[0]
        truth = None if first.collision.particle is None else matches(config, [first], method)
        shown = plots.display(first.collision, first.tracks[method], truth)
        arrays |= packed(f"display {method}", shown)
        if known:
            numbers |= {f"{method} {k}": v for k, v in track_numbers(config, known, method).items()}
            arrays |= packed_matches(method, matches(config, known, method))
    if known:
        numbers["collisions with truth"] = float(len(known))
        counts, of_edges = edges(config, known)
        numbers |= of_edges
        arrays |= packed("edges", counts)
    own = [Found(r.collision, r.tracks["network"], r.fits["network"]) for r in found]
    return {"numbers": numbers, "arrays": arrays, "tables": {"tracks": track_table(own)}}


def counted(found: Sequence[Reconstruction], method: str) -> dict[str, float]:
    """Tracks of a method, and what its fit has taken out, per collision."""
    tracks = [len(r.tracks[method].offsets) - 1 for r in found]
    hits, lost = np.array([r.dropped[method] for r in found]).T
    return {
        f"{method} tracks per collision": float(np.mean(tracks)),
        f"{method} hits per collision taken out by the fit": float(hits.mean()),
        f"{method} tracks per collision dropped by the fit": float(lost.mean()),
    }


def setting(config: Config, found: Sequence[Reconstruction]) -> str:
    """What the collisions are, for the titles of the figures."""
    made = f"pile-up {config.mu:g}" if config.hits is None else config.hits.name
    cut = config.occupancy == "targets" and found[0].collision.particle is not None
    return f"{made}, {f'hits of pT > {config.min_pt:g} GeV only' if cut else 'all hits'}"


def edges(
    config: Config, found: Sequence[Reconstruction]
) -> tuple[edge_metrics.EdgeCounts, dict[str, float]]:
    """Edges above each cut, and AUC, efficiencies and purities of all collisions together."""
    target = dataset.target(config)
    labels = [graphs.edge_labels(r.graph, r.collision, target) for r in found]
    counts = edge_metrics.add_edges(
        [
            edge_metrics.edge_counts(
                r.scores, own.label, own.counted,
                edge_metrics.target_edges(r.collision, target), CUTS,
            )
            for r, own in zip(found, labels, strict=True)
        ]
    )  # fmt: skip
    half = int(np.searchsorted(CUTS, 0.5))
    numbers = {
        "edge purity at 0.5": float(counts.purity[half]),
        "edge masked purity at 0.5": float(counts.masked_purity[half]),
        "edge purity before any cut": float(counts.masked_purity[0]),
    }
    if counts.all_true:  # a share of no edges is left out
        numbers["graph efficiency"] = counts.graph_efficiency
    if counts.in_graph:
        numbers["edge efficiency at 0.5"] = float(counts.efficiency[half])
    if counts.in_graph and counts.fake[0]:
        numbers["edge AUC"] = edge_metrics.edge_auc(
            np.concatenate([r.scores for r in found]),
            np.concatenate([own.label for own in labels]),
            np.concatenate([own.counted for own in labels]),
        )
    return counts, numbers


def matches(
    config: Config,
    found: Iterable[Reconstruction],
    method: str,
    style: metrics.Style = STYLE,
) -> metrics.Matches:
    """Which particles the tracks of a method find."""
    target = dataset.target(config)
    return metrics.concatenate(
        [
            metrics.match_tracks(
                r.tracks[method], r.collision, target, style, fit=r.fits[method], mu=r.mu
            )
            for r in found
        ]
    )


def track_numbers(config: Config, found: Sequence[Reconstruction], method: str) -> dict[str, float]:
    """Efficiencies in every style, fakes and duplicates, TrackML score; undefined ones left out."""
    rates: dict[str, metrics.Rate] = {}
    for style in metrics.STYLES:
        own = matches(config, found, method, style)
        rates[f"efficiency {style}"] = own.efficiency
        rates[f"fake rate {style}"] = own.fake_rate
        rates[f"fake rate {style}, tracks of targets"] = own.target_fake_rate
        rates[f"duplicate rate {style}"] = own.duplicate_rate
    shares = {name: rate.share for name, rate in rates.items()}
    defined = {name: share for name, share in shares.items() if share is not None}
    scores = [score for r in found if (score := trackml_score(r, method)) is not None]
    return defined | ({"TrackML score": float(np.mean(scores))} if scores else {})


def trackml_score(found: Reconstruction, method: str) -> float | None:
    """Score of the TrackML challenge; None for a collision whose hits have no weight."""
    try:
        return metrics.trackml_score(found.tracks[method], found.collision)
    except DataError:
        return None


def against_pile_up(
    config: Config, found: Sequence[Reconstruction], others: Sequence[Reconstruction]
) -> dict[str, np.ndarray]:
    """What the tracks find at lower pile-up as well, by method."""
    arrays: dict[str, np.ndarray] = {}
    for method in METHODS:
        everything = matches(config, [*found, *others], method)
        arrays |= packed_matches(f"pile-up {method}", everything)
    return arrays


def packed(name: str, values: Any) -> dict[str, np.ndarray]:
    """A NamedTuple as arrays that results keep; fields that are None are left out."""
    fields = values._asdict().items()
    return {f"{name} {k}": np.asarray(v) for k, v in fields if v is not None}


def packed_matches(name: str, found: metrics.Matches) -> dict[str, np.ndarray]:
    """Particles and tracks of matches."""
    return packed(f"{name} particles", found.particles) | packed(f"{name} found", found.tracks)


OWN = "own collisions, hits of particles under 1 GeV left out with truth; no published value"
OWN_FULL = (
    "own collisions, all hits; GNN4ITk CTD 2023 has 0.992 at a masked purity of 0.929 on the ITk"
)
DEFAULT: tuple[Claim, ...] = (
    Claim("edge AUC", "", 0.993, 1.0, source=OWN),
    Claim("graph efficiency", "", 0.99, 1.0, source=OWN),
    Claim(
        "network efficiency two_way", "", 0.95, 1.0, source=OWN,
        baseline="baseline efficiency two_way",
    ),
    Claim(
        "network fake rate two_way", "", 0.0, 0.03, source=OWN,
        baseline="baseline fake rate two_way",
    ),
)  # fmt: skip

EXPERIMENT = Experiment(
    name="track_edges",
    presets=PRESETS,
    load=load,
    objective=objective,
    evaluate=evaluate,
    figures=figures,
    claims={
        "smoke": (Claim("edge AUC", "", 0.97, 1.0, source=OWN),),
        "default": DEFAULT,
        # Never run here: it needs a GPU. Published values stand for a real detector.
        "paper": (
            Claim("graph efficiency", "", 0.99, 1.0, source=OWN_FULL),
            Claim("edge efficiency at 0.5", "", 0.9, 1.0, source=OWN_FULL),
        ),
    },
)
