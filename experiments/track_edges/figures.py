"""Figures from results alone; nothing here trains or reads a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from physml import plots
from physml.metrics import Roc
from physml.tracking import geometry, metrics
from physml.tracking import plots as displays
from physml.tracking.edge_metrics import EdgeCounts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from physml.run import Results

METHODS = {"network": "graph network", "baseline": "seed and follow"}
STYLE: metrics.Style = "two_way"  # double majority
PUBLISHED = {"GNN4ITk CTD 2023, ITk, all hits": (0.992, 0.929)}  # efficiency, masked purity


def figures(results: Results) -> dict[str, Figure]:
    """Displays, scores, ROC, purity, efficiency and fakes, timing, training."""
    arrays, numbers = results["arrays"], results["numbers"]
    count = int(numbers["collisions"])
    title = f"{count} collision{'s' if count > 1 else ''}, {arrays['setting']}"
    drawn = {
        f"display_{method}": displays.event_display(
            unpacked(displays.Display, f"display {method}", arrays),
            geometry.trackml(),
            title=f"{name}; {arrays['setting']}",
        )
        for method, name in METHODS.items()
    }
    stages, seconds = arrays["stage"].astype(str), np.median(arrays["seconds"], axis=0)
    times = dict(zip(stages.tolist(), seconds.tolist(), strict=True))
    beside = f"median of {title}\nwithout start-up and compilation; "
    beside += f"seed, follow and fit instead: {times.pop('baseline'):.2f} s"
    run = f"{numbers['hits per collision']:,.0f} hits, {numbers['edges per collision']:,.0f} edges"
    drawn["timing"] = displays.stage_times({run: times}, title=beside)
    if "edge AUC" in numbers:
        counts = unpacked(EdgeCounts, "edges", arrays)
        even = np.isin(counts.cut, np.linspace(0, 1, 51))
        binned = EdgeCounts(*(c[even] for c in counts[:4]), counts.in_graph, counts.all_true)
        drawn["scores"] = displays.scores(binned, title=title)
        drawn["roc"] = _roc(counts, title)
        drawn["purity"] = displays.purities(
            {"graph network": counts},
            references=PUBLISHED if str(arrays["setting"]).endswith("all hits") else {},
            title=title,
        )
    if all(f"{method} fake rate {STYLE}" in numbers for method in METHODS):
        drawn |= _fakes(arrays, title)
    if f"network efficiency {STYLE}" in numbers:
        drawn |= _efficiencies(arrays, title)
    if "log loss" in arrays:
        logged = {"batch": arrays["log loss"], "validation": arrays["log validation_loss"]}
        drawn["training"] = plots.training(logged, "loss of the edges")
    return drawn


def _efficiencies(arrays: Mapping[str, np.ndarray], title: str) -> dict[str, Figure]:
    """Efficiency of both methods against what particles have, and against pile-up."""
    found = {name: _matches(method, arrays) for method, name in METHODS.items()}
    slowest = min(own.particles.pt.min() for own in found.values())
    bins = {"pt": metrics.BINS["pt"] if slowest >= 1 else metrics.LOW_PT_BINS}
    drawn = {}
    for variable in ("pt", "eta", "radius"):
        shares = {
            name: metrics.efficiency_in(own, variable, bins.get(variable))
            for name, own in found.items()
        }
        drawn[f"efficiency_{variable}"] = displays.efficiencies(
            shares, variable, STYLE, title=title
        )
    if "pile-up network particles pt" in arrays:
        found = {name: _matches(f"pile-up {m}", arrays) for m, name in METHODS.items()}
        shares = {
            name: metrics.efficiency_in(own, "mu", _between(own.particles.mu))
            for name, own in found.items()
        }
        drawn["efficiency_mu"] = displays.efficiencies(
            shares, "mu", STYLE, title=_pile_ups(found["graph network"])
        )
    return drawn


def _fakes(arrays: Mapping[str, np.ndarray], title: str) -> dict[str, Figure]:
    """Fake rate of both methods against what tracks have, and against pile-up."""
    found = {name: _matches(method, arrays) for method, name in METHODS.items()}
    bins = {"pt": metrics.LOW_PT_BINS}  # fits of particles just above the cut fall below it
    drawn = {}
    for variable in ("pt", "eta"):
        shares = {
            name: metrics.fakes_in(own, variable, bins.get(variable)) for name, own in found.items()
        }
        drawn[f"fakes_{variable}"] = displays.fakes(shares, variable, STYLE, title=title)
    if "pile-up network particles pt" in arrays:
        found = {name: _matches(f"pile-up {m}", arrays) for m, name in METHODS.items()}
        shares = {
            name: metrics.fakes_in(own, "mu", _between(own.particles.mu))
            for name, own in found.items()
        }
        drawn["fakes_mu"] = displays.fakes(
            shares, "mu", STYLE, title=_pile_ups(found["graph network"])
        )
    return drawn


def _between(values: np.ndarray) -> np.ndarray:
    """Edges of bins that hold one of the values each, evenly spaced ones in their middle."""
    own = np.unique(values)
    half = np.diff(own) / 2 if len(own) > 1 else np.array([0.5])
    return np.concatenate(
        [[own[0] - half[0]], own[:-1] + half[: len(own) - 1], [own[-1] + half[-1]]]
    )


def _pile_ups(found: metrics.Matches) -> str:
    means = ", ".join(f"{mu:g}" for mu in np.unique(found.particles.mu))
    return f"test collisions at a mean pile-up of {means}"


def _roc(counts: EdgeCounts, title: str) -> Figure:
    """Fakes that pass against target edges that pass, at the cuts that were counted."""
    fakes = counts.fake / max(int(counts.fake[0]), 1)
    curve = Roc(*(np.append(0.0, x[::-1]) for x in (counts.cut, counts.efficiency, fakes)))
    curve.cut[0] = np.inf
    return plots.roc_curves(
        {"edges": {"graph network": curve}},
        x_label="edge efficiency (target, in the graph)", y_label="share of fakes that pass",
        title=title,
    )  # fmt: skip


def _matches(name: str, arrays: Mapping[str, np.ndarray]) -> metrics.Matches:
    return metrics.Matches(
        STYLE,
        unpacked(metrics.FoundParticles, f"{name} particles", arrays),
        unpacked(metrics.MatchedTracks, f"{name} found", arrays),
    )


def unpacked(kind: Any, name: str, arrays: Mapping[str, np.ndarray]) -> Any:
    """The NamedTuple whose fields results keep as "NAME FIELD"; None where there is none."""
    return kind(*(arrays.get(f"{name} {field}") for field in kind._fields))
