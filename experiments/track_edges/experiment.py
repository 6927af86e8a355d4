"""Train a graph network on edges, build tracks, and measure both on collisions unseen."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml import export
from physml.claims import Claim
from physml.run import Experiment, Results
from physml.tracking import baseline, edge_metrics, fits, graphs, metrics, plots
from physml.tracking.events import Collision, Tracks
from physml.tracking.nets import InteractionNetwork
from physml.tracking.objective import objective as classifier
from physml.tracking.objective import score, scorer
from physml.tracking.tracks import TrackCuts, build_tracks
from physml.tracking.writers import Found, track_table
from physml.train import Objective, Splits, TrainState

from . import dataset
from .config import PRESETS, Config, check
from .dataset import DETECTOR
from .figures import figures

METHODS = ("network", "baseline")
CUTS = np.linspace(0.0, 1.0, 201)  # on edge scores
STYLE: metrics.Style = "two_way"  # of the figures: double majority
PILE_UP = (0.25, 0.5, 0.75)  # of the mean, for the figure against pile-up
FEWER = 3  # collisions at each of them


class Reconstruction(NamedTuple):
    """What was made of one collision, and how long each stage took."""

    collision: Collision
    graph: Any
    scores: np.ndarray
    tracks: Mapping[str, Tracks]  # by method
    fits: Mapping[str, fits.TrackFit]
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
    return InteractionNetwork(width=config.width, steps=config.layers, dtype=dtype)


def objective(config: Config) -> Objective:
    """Loss of the edges by gradient descent."""
    return classifier(network(config), config.descent, config.loss)


def evaluate(config: Config, state: TrainState, splits: Splits) -> Results:
    """Edges and tracks of the test collisions, or of the user's own."""
    if config.hits is not None:
        found = [reconstruct(config, state, collision) for collision in dataset.own(config)]
    else:
        found = reconstructed(config, state, config.test, config.mu)
    results = measured(config, found)
    numbers, arrays, files = dict(results["numbers"]), dict(results["arrays"]), {}
    if config.hits is None:
        means = [share * config.mu for share in PILE_UP]
        others = [r for mu in means for r in reconstructed(config, state, FEWER, mu)]
        arrays |= against_pile_up(config, found, others)
    if config.export:
        files, differences = exported(config, state, found[0])
        numbers |= differences
    return {**results, "numbers": numbers, "arrays": arrays, "files": files}


def exported(
    config: Config, state: TrainState, example: Reconstruction
) -> tuple[dict[str, bytes], dict[str, float]]:
    """The network as ONNX and StableHLO, and how far their scores are from ours."""
    function, inputs = scorer(network(config), state.params)
    files = {
        "edges.onnx": export.onnx(function, inputs, "scores"),
        "edges.stablehlo": export.stablehlo(function, inputs),
    }
    graph = example.graph
    index = np.stack([graph.senders, graph.receivers]).astype(np.int32)
    values = dict(zip(inputs, (graph.nodes, index, graph.edges), strict=True))
    onnx = export.run_onnx(files["edges.onnx"], values)
    stablehlo = export.run_stablehlo(files["edges.stablehlo"], values)
    return files, {
        "largest difference of an ONNX score": float(np.abs(onnx - example.scores).max()),
        "largest difference of a StableHLO score": float(np.abs(stablehlo - example.scores).max()),
    }


def reconstructed(config: Config, state: TrainState, size: int, mu: float) -> list[Reconstruction]:
    """Test collisions of our maker."""
    made = dataset.produced(config, "test", size, mu)
    return [reconstruct(config, state, collision, mu) for collision in made]


def reconstruct(
    config: Config, state: TrainState, collision: Collision, mu: float | None = None
) -> Reconstruction:
    """Graph, scores, tracks and fits of one collision; the baseline beside them."""
    seconds: dict[str, float] = {}

    def timed(stage: str, function: Any) -> Any:
        start = time.perf_counter()
        result = function()
        seconds[stage] = time.perf_counter() - start
        return result

    hits = collision.hits
    graph = timed("graph", lambda: dataset.graph_of(config, collision))
    scores = timed("scores", lambda: score(network(config), state.params, graph))
    built = timed("tracks", lambda: build_tracks(graph, scores, cuts(config)))
    fitted = timed("fit", lambda: cleaned(built, collision))
    followed = timed("baseline", lambda: cleaned(baseline.follow(hits, DETECTOR), collision))
    both = dict(zip(METHODS, (fitted, followed), strict=True))
    return Reconstruction(
        collision, graph, scores,
        {name: kept.tracks for name, kept in both.items()},
        {name: kept.fit for name, kept in both.items()},
        seconds, mu,
    )  # fmt: skip


def cuts(config: Config) -> TrackCuts:
    """How scores become tracks."""
    return TrackCuts()


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
    arrays = {
        "setting": np.array(setting(config)),
        "stage": np.array(stages),
        "seconds": np.array([[r.seconds[stage] for stage in stages] for r in found]),
    }
    for method in METHODS:
        numbers[f"{method} tracks per collision"] = float(
            np.mean([len(r.tracks[method].offsets) - 1 for r in found])
        )
        shown = plots.display(found[0].collision, found[0].tracks[method], None)
        if found[0].collision.particle is not None:
            shown = plots.display(
                found[0].collision, found[0].tracks[method], matches(config, found[:1], method)
            )
        arrays |= packed(f"display {method}", shown)
    if all(r.collision.particle is not None for r in found):
        counts, edge_numbers = edges(config, found)
        numbers |= edge_numbers
        arrays |= packed("edges", counts)
        for method in METHODS:
            numbers |= {f"{method} {k}": v for k, v in track_numbers(config, found, method).items()}
            arrays |= packed_matches(method, matches(config, found, method))
    own = [Found(r.collision, r.tracks["network"], r.fits["network"]) for r in found]
    return {"numbers": numbers, "arrays": arrays, "tables": {"tracks": track_table(own)}}


def setting(config: Config) -> str:
    """What the collisions are, for the titles of the figures."""
    made = f"pile-up {config.mu:g}" if config.hits is None else config.hits.name
    which = "all hits" if config.occupancy == "full" else f"hits of pT > {config.min_pt:g} GeV only"
    return f"{made}, {which}"


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
    auc = edge_metrics.edge_auc(
        np.concatenate([r.scores for r in found]),
        np.concatenate([own.label for own in labels]),
        np.concatenate([own.counted for own in labels]),
    )
    half = int(np.searchsorted(CUTS, 0.5))
    return counts, {
        "edge AUC": auc,
        "graph efficiency": counts.graph_efficiency,
        "edge efficiency at 0.5": float(counts.efficiency[half]),
        "edge purity at 0.5": float(counts.purity[half]),
        "edge masked purity at 0.5": float(counts.masked_purity[half]),
        "edge purity before any cut": float(counts.masked_purity[0]),
    }


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
        if style == STYLE:
            rates[f"fake rate {style}"] = own.fake_rate
            rates[f"duplicate rate {style}"] = own.duplicate_rate
    score = [metrics.trackml_score(r.tracks[method], r.collision) for r in found]
    shares = {name: rate.share for name, rate in rates.items()}
    defined = {name: share for name, share in shares.items() if share is not None}
    return {**defined, "TrackML score": float(np.mean(score))}


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


OWN = "own collisions; hits of particles under 1 GeV left out with truth"
EDGES = "arXiv 2103.16701 quotes more than 0.99 at pT > 1 GeV on its own selection; not comparable"
DEFAULT: tuple[Claim, ...] = (
    Claim("edge AUC", "", 0.993, 1.0, source=OWN),
    Claim("graph efficiency", "", 0.98, 1.0, source=OWN),
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
        "smoke": (Claim("edge AUC", "", 0.9, 1.0, source=OWN),),
        "default": DEFAULT,
        "paper": DEFAULT,
    },
)
