"""Figures from results alone; nothing here trains, samples or reads a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import LogFormatter

from physml import plots
from physml.calorimeter import images, metrics
from physml.calorimeter import plots as displays
from physml.calorimeter.geometry import Layer
from physml.calorimeter.panels import Histogram, Points, binned, ratio_of, unpacked

from .comparison import range_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from physml.run import Results

Arrays = Mapping[str, np.ndarray]
SAMPLES = ("truth", "generated")
PHOTONS_1 = (0, 1, 2, 3, 12)  # numbers of the layers whose scorecards are published
AXES = "eta, phi: mm across the axis"
# Feature -> its axis, whether that and the shares are logarithmic, what it is.
FEATURES = {
    "e_layer": ("energy of the layer (MeV)", True, False, ""),
    "centre_eta": ("centre in eta (mm)", False, True, AXES),
    "centre_phi": ("centre in phi (mm)", False, True, AXES),
    "centre_r": ("mean r (mm)", False, False, "r: distance from the axis"),
    "width_eta": ("width in eta (mm)", False, False, AXES),
    "width_phi": ("width in phi (mm)", False, False, AXES),
    "width_r": ("width in r (mm)", False, False, "r: distance from the axis"),
    "sparsity": ("share of empty voxels", False, False, ""),
}
# Number of the judge -> title, value of a perfect generator, whether its axis is logarithmic.
SCORES = {
    "auc_low": ("AUC, voxels", 0.5, False),
    "auc_high": ("AUC, features", 0.5, False),
    "fpd_e3": ("Fréchet distance x 1000", None, True),
    "kpd_e3": ("kernel distance x 1000", None, True),
    "precision": ("precision", None, False),
    "recall": ("recall", None, False),
    "density": ("density", 1.0, True),
    "coverage": ("coverage", None, False),
    "sep_width_eta_e3": ("sep. x 1000, width eta", None, True),
    "sep_width_phi_e3": ("sep. x 1000, width phi", None, True),
    "sep_width_r_e3": ("sep. x 1000, width r", None, True),
    "sep_sparsity_e3": ("sep. x 1000, sparsity", None, True),
}


def figures(results: Results) -> dict[str, Figure]:
    """Showers, energies, shapes, correlations, neighbours, speed, training, scorecard."""
    arrays, numbers = results["arrays"], results["numbers"]
    drawn = _showers(arrays) | _responses(arrays) | _features(arrays)
    edges = arrays["spectrum edges"]
    drawn["voxel_spectrum"] = displays.spectrum(
        edges, [Points(*arrays[f"spectrum {name}"]) for name in SAMPLES],
        "deposit of a voxel (MeV)", "voxels of a shower in the bin",
    )  # fmt: skip
    matrices = {
        what: [arrays[f"correlation of {what} {name}"] for name in SAMPLES]
        for what in ("energies", "energies over E_inc")
    }
    drawn["correlations"] = images.correlation_matrices(
        matrices, arrays["layer id"].tolist(), title="Pearson correlation of the layers' energies"
    )
    if "nearest truth" in arrays:
        drawn["nearest_neighbours"] = _nearest(arrays, numbers)
    if "speed ms" in arrays:
        drawn["speed"] = _speed(arrays)
    if _ids(arrays) == PHOTONS_1 and "judge fpd_e3" in numbers:
        drawn["scorecard"] = _scorecard(
            numbers, str(arrays.get("scorecard note", metrics.NOT_COMPARABLE))
        )
    return drawn | _training(arrays)


def _ids(arrays: Arrays) -> tuple[int, ...]:
    return tuple(arrays["layer id"].tolist())


def _shown(arrays: Arrays) -> str:
    """Which layers are shown, where not all are."""
    ids, shown = _ids(arrays), arrays["layer shown"]
    return "" if len(shown) == len(ids) else f"{len(shown)} of {len(ids)} layers"


def _histograms(arrays: Arrays, feature: str) -> dict[str, Histogram]:
    names = {f"layer {k}": f"{feature} layer {k}" for k in _ids(arrays)}
    return {title: unpacked(arrays[name]) for title, name in names.items() if name in arrays}


def _layers(arrays: Arrays) -> list[Layer]:
    ids = np.array(_ids(arrays))[arrays["layer shown"]].tolist()
    kinds = zip(ids, arrays["layer polar"], strict=True)
    return [Layer(k, bool(p), arrays[f"slow {k}"], arrays[f"fast {k}"]) for k, p in kinds]


def _by_layer(arrays: Arrays, values: np.ndarray) -> list[np.ndarray]:
    """The voxels of each layer that is shown."""
    parts = arrays["layer voxels"][arrays["layer shown"]]
    return [values[start:stop] for start, stop in parts]


def _showers(arrays: Arrays) -> dict[str, Figure]:
    """Mean showers over all energies with their ratio, and at a few energies."""
    layers, many = _layers(arrays), _shown(arrays)
    means = [Points(*arrays[f"mean shower {name}"].astype(float)) for name in SAMPLES]
    ratio = ratio_of(*means).value
    # Both samples alike: errors over the ratio alone would leave its low fluctuations.
    spread, middle = np.hypot(*(x.error for x in means)), (means[0].value + means[1].value) / 2
    ratio[~(spread < images.MOST_ERROR * middle)] = np.nan
    rows = {name: _by_layer(arrays, x.value) for name, x in zip(SAMPLES, means, strict=True)}
    title = f"mean shower, {many}" if many else "mean shower"
    grey = f"ratio grey: no energy, or uncertain by over {100 * images.MOST_ERROR:.0f} %"
    energies, labels = arrays["mean shower energy"], _energies(arrays, "mean shower energy")
    by_energy = {
        f"{label}\n{name}": _by_layer(
            arrays, arrays[f"mean shower at energies {name}"][k] / (energy / 1e3)
        )
        for k, (energy, label) in enumerate(zip(energies, labels, strict=True))
        for name in SAMPLES
    }
    return {
        "average_shower": images.mean_showers(
            layers, rows, "mean deposit of a voxel (MeV)",
            title=f"{title}; {grey}", ratio=_by_layer(arrays, ratio),
        ),
        "average_by_energy": images.mean_showers(
            layers, by_energy, "mean deposit of a voxel (MeV per GeV of the incident energy)",
            title=title,
        ),
    }  # fmt: skip


def _energies(arrays: Arrays, name: str) -> list[str]:
    """Names of the groups of energy; results of earlier versions hold no ranges."""
    ranges = arrays.get(f"{name} range", np.column_stack([arrays[name]] * 2))
    return [range_label(*pair) for pair in ranges]


def _responses(arrays: Arrays) -> dict[str, Figure]:
    """E_tot / E_inc: over all, at each energy, its mean and width; the shares of the layers."""
    energy = arrays["energy"]
    label = "E_tot / E_inc"
    panels = {
        name: unpacked(arrays[f"response {k}"])
        for k, name in enumerate(_energies(arrays, "energy"))
    }
    resolution = f"σ / mean of {label}"
    both = [arrays[f"response {name}"] for name in SAMPLES]
    moments = {
        f"mean of {label}": (Points(*both[0][:2]), Points(*both[1][:2])),
        resolution: (Points(*both[0][2:]), Points(*both[1][2:])),
    }
    shares = tuple(Points(*arrays[f"share {name}"].astype(float)) for name in SAMPLES)
    ids = _ids(arrays)
    return {
        "response": displays.histogram_panels(
            {"all energies": unpacked(arrays["response"])}, label
        ),
        "response_by_energy": displays.histogram_panels(panels, label, columns=5),
        "response_and_resolution": displays.against(
            energy / 1e3, moments, "incident energy (GeV)", log_y=[resolution],
            title="resolution: standard deviation σ over mean",
        ),
        "layer_shares": displays.against(
            np.arange(float(len(ids))), {"mean share of E_tot": (shares[0], shares[1])},
            "layer", log_x=False, log_y=["mean share of E_tot"],
            ticks=[str(k) for k in ids] if len(ids) <= 10 else (),
        ),
    }  # fmt: skip


def _features(arrays: Arrays) -> dict[str, Figure]:
    """Histograms of the layers' features."""
    drawn = {}
    for feature, (label, log_x, log_y, said) in FEATURES.items():
        panels = _histograms(arrays, feature)
        if panels:
            drawn[feature.replace("e_layer", "layer_energies")] = displays.histogram_panels(
                panels,
                label,
                log_x=log_x,
                log_y=log_y,
                title="; ".join(filter(None, (_shown(arrays), said))),
            )
    return drawn


def _nearest(arrays: Arrays, numbers: Mapping[str, float]) -> Figure:
    """Distances to the nearest training shower."""
    values = [arrays[f"nearest {name}"].astype(float) for name in SAMPLES]
    both = np.concatenate(values)
    edges = np.linspace(0.0, 1.001 * np.quantile(both, 0.998), 41)
    share = numbers["share of generated showers nearer to a training shower than 1 % of truth"]
    found = binned(values, edges)
    return displays.histogram_panels(
        {f"generated that are nearer than the nearest 1 % of truth: {100 * share:.2g} %": found},
        "distance to the nearest training shower (whitened voxels)",
    )


def _speed(arrays: Arrays) -> Figure:
    """The generator's times, and those of others that are stored beside them."""
    curves = {"this generator": (arrays["speed batch"], arrays["speed ms"])}
    for key in sorted(arrays):
        name = key.removeprefix("speed ").removesuffix(" ms")
        if key == f"speed {name} ms":
            time = arrays[key]
            batch = arrays.get(f"speed {name} batch", arrays["speed batch"])
            curves[name] = (batch if len(time) > 1 else np.ones(1), time)
    return displays.speeds(curves)


def _scorecard(numbers: Mapping[str, float], note: str) -> Figure:
    """The judge's numbers beside those of the published GANs."""
    ours = f"this generator\n({note})"
    scores: dict[str, dict[str, tuple[float, float]]] = {}
    for key, (title, _, _) in SCORES.items():
        if f"judge {key}" in numbers:
            error = numbers.get(f"judge {key}_error", 0.0)
            scores[title] = {ours: (numbers[f"judge {key}"], error)}
            scores[title] |= {model: (x[key], 0.0) for model, x in metrics.published().items()}
    full = numbers.get("judge full_size", 0.0) == 1
    return displays.score_dots(
        scores,
        log=[title for title, _, log in SCORES.values() if log],
        best={title: best for title, best, _ in SCORES.values() if best is not None},
        title=f"scorecard, {'full' if full else 'reduced'} judge; published: arXiv 2410.21611",
    )


def _training(arrays: Arrays) -> dict[str, Figure]:
    """What the critics saw while training, and the chi2 of the validation showers."""
    names = {
        "log distance_layers": "layers' energies",
        "log distance_showers": "showers",
    }
    drawn = {}
    logged = {label: arrays[key] for key, label in names.items() if key in arrays}
    if logged:
        drawn["training_critics"] = plots.training(logged, "Wasserstein distance (critic's scale)")
    names = {
        "log validation_chi2": "all features",
        "log validation_chi2_response": "E_tot / E_inc",
    }
    logged = {label: arrays[key] for key, label in names.items() if key in arrays}
    if logged:
        figure = plots.training(logged, "χ² per degree of freedom, validation")
        axes = figure.axes[0]
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter())
        drawn["training_chi2"] = figure
    return drawn
