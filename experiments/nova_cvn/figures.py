"""Figures from results alone; nothing here trains or reads a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from physml import metrics, plots
from physml.neutrino import plots as displays
from physml.neutrino.events import CLASSES
from physml.neutrino.metrics import scan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from physml.run import Results

MODELS = {"network": "network", "baseline": "logistic"}
PID = (0, 1)  # classes whose spectra and cuts are drawn
EDGES = np.linspace(0, 1, 41)
ENERGY = np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 10.0])  # GeV
CUTS = np.linspace(0.0, 1.0, 201)
COSMIC = CLASSES.index("cosmic")
# Cosmic rays are kept out of expected events: they outnumber the beam by far before a containment
# cut, which no score replaces.
EXPOSURE = "beam events expected in 14 kt, oscillated; own event maker"


def figures(results: Results) -> dict[str, Figure]:
    """Displays, ROC, spectra, cuts, confusion, calibration, embedding, occlusion, robustness."""
    arrays = results["arrays"]
    label = arrays["label"]
    drawn = {
        "displays": displays.event_displays(
            arrays["display"], list(arrays["display_class"].astype(str)), "brightness (1 to 255)"
        ),
        "occlusion": displays.event_displays(
            arrays["occlusion"], list(arrays["display_class"].astype(str)),
            "fall of log p(true class)", diverging=True,
        ),
        "roc": _roc(arrays),
        "reliability": plots.reliability_diagram(
            {
                MODELS[m]: metrics.reliability(c.max(1), c.argmax(1) == label)
                for m, c in _chances(arrays).items()
            },
            title="most probable class",
        ),
        "embedding": plots.scatter(
            *arrays["embedding"].T, "t-SNE 1 (no unit)", "t-SNE 2 (no unit)",
            classes=np.array(CLASSES)[arrays["embedding_label"]],
        ),
        "training": _training(arrays),
    }  # fmt: skip
    for model, chance in _chances(arrays).items():
        counts = metrics.confusion(label, chance.argmax(1), len(CLASSES))
        drawn[f"confusion_{MODELS[model]}"] = plots.confusion_matrix(counts, CLASSES)
    for k in PID:
        if arrays["weight"][label == k].sum() > 0:
            drawn |= _selection(arrays, k)
    if "change" in arrays:
        drawn["robustness"] = _robustness(arrays)
    return drawn


def _chances(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: arrays[f"chance {name}"].astype(float) for name in MODELS}


def _roc(arrays: dict[str, np.ndarray]) -> Figure:
    label = arrays["label"]
    curves = {
        name: {
            MODELS[m]: metrics.roc(chance[:, k], label == k)
            for m, chance in _chances(arrays).items()
        }
        for k, name in enumerate(CLASSES)
        if 0 < (label == k).sum() < len(label)
    }
    return plots.roc_curves(curves, title="each class against all others")


def _selection(arrays: dict[str, np.ndarray], k: int) -> dict[str, Figure]:
    """Spectrum of a score, scan of its cut, efficiency and purity against energy."""
    beam = arrays["label"] != COSMIC
    label, weight, energy = (arrays[name][beam] for name in ("label", "weight", "energy"))
    scores = {MODELS[m]: chance[beam, k] for m, chance in _chances(arrays).items()}
    name = CLASSES[k]
    scans = {m: scan(score, label == k, weight, CUTS) for m, score in scores.items()}
    drawn = {f"cut_{name}": displays.cut_scans(scans, f"smallest {name} score", title=EXPOSURE)}
    for m, score in scores.items():
        counts = {
            other: np.histogram(score[label == j], EDGES, weights=weight[label == j])[0]
            for j, other in enumerate(CLASSES)
            if j != COSMIC
        }
        drawn[f"spectrum_{name}_{m}"] = plots.histograms(
            EDGES, counts, f"{name} score, {m}", "expected events per bin",
            stacked=True, title=EXPOSURE,
        )  # fmt: skip
    series = {}
    for m, score in scores.items():
        passed = score >= scans[m].cut[np.argmax(scans[m].merit)]
        series[f"{m}: efficiency"] = _shares(passed, label == k, weight, energy)
        series[f"{m}: purity"] = _shares(label == k, passed, weight, energy)
    title = f"{name}, cut of the best figure of merit"
    drawn[f"energy_{name}"] = plots.efficiency(
        ENERGY, series, "true neutrino energy (GeV)", "share", title=title
    )
    return drawn


def _shares(
    right: np.ndarray, among: np.ndarray, weight: np.ndarray, energy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted share of `right` among some events in bins of energy, with its interval."""
    place = np.digitize(energy, ENERGY) - 1
    rows = [among & (place == b) for b in range(len(ENERGY) - 1)]
    passed, total = np.array([metrics.effective(right[r], weight[r]) for r in rows]).T
    low, high = metrics.clopper_pearson(passed, total)
    share = np.divide(passed, total, out=np.full(len(total), np.nan), where=total > 0)
    return share, low, high


def _robustness(arrays: dict[str, np.ndarray]) -> Figure:
    series = {
        f"{MODELS[m]}: {what}": arrays["change_score"][:, i, j]
        for i, m in enumerate(MODELS)
        for j, what in enumerate(("accuracy", "nue AUC"))
    }
    return displays.robustness(list(arrays["change"].astype(str)), series, "score on test events")


def _training(arrays: dict[str, np.ndarray]) -> Figure:
    logged = {"training": arrays["log loss"], "validation": arrays["log validation_loss"]}
    return plots.training(logged, "cross-entropy (nats)")
