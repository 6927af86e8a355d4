"""Figures from results alone; nothing here trains or reads a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from physml import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from physml.run import Results

QUANTITY, UNIT = "formation entropy", "$k_B$"
TITLES = {
    "linear": "AFS, linear",
    "products": "+ sums of products",
    "random": "+ sums of random cosines",
}
SPLITS = {"random": "random folds", "grouped": "near-copies in one fold"}
FEWEST = 5  # minima that make an error per class worth drawing
GOAL_MAE = 0.18  # kB: attributed to Phys. Rev. Materials 4, 063802 (2020), A_{3,10} on MEAM


def figures(results: Results) -> dict[str, Figure]:
    """Parity for both splits, residuals, learning curve, errors per class, entropy and energy."""
    arrays = results["arrays"]
    drawn = {}
    for split in SPLITS:
        for model in ("linear", "random"):
            drawn[f"parity_{split}_{model}"] = _parity(arrays, split, model)
    drawn["residuals"] = plots.residuals(
        arrays["entropy"],
        arrays["grouped_random"],
        QUANTITY,
        UNIT,
        classes=arrays["classes"],
        title=f"{TITLES['random']}, {SPLITS['grouped']}",
    )
    drawn["learning_curve"] = _learning_curve(arrays)
    drawn["errors_by_class"] = _errors_by_class(arrays)
    drawn["entropy_against_energy"] = plots.scatter(
        arrays["energy"],
        arrays["entropy"],
        "formation energy (eV)",
        f"{QUANTITY} ({UNIT})",
        classes=arrays["classes"],
        labelled=_named(arrays),
    )
    return drawn


def _parity(arrays: dict[str, np.ndarray], split: str, model: str) -> Figure:
    return plots.parity(
        arrays["entropy"],
        arrays[f"{split}_{model}"],
        QUANTITY,
        UNIT,
        classes=arrays["classes"],
        bars=arrays[f"{split}_{model}_bar"],
        bars_label="68 % of errors",
        train=(arrays["entropy"], arrays[f"fitted_{model}"]),
        baseline=arrays[f"{split}_class_mean"],
        title=f"{TITLES[model]}, {SPLITS[split]}",
    )


def _learning_curve(arrays: dict[str, np.ndarray]) -> Figure:
    curves = {
        TITLES[model]: (arrays[f"curve_sizes_{model}"], arrays[f"curve_mae_{model}"])
        for model in TITLES
    }
    error = np.abs(arrays["grouped_class_mean"] - arrays["entropy"]).mean()
    return plots.learning_curve(
        curves,
        "training minima",
        f"test MAE ({UNIT})",
        baselines={"class mean": float(error), "goal (MEAM)": GOAL_MAE},
        title=SPLITS["grouped"],
    )


def _errors_by_class(arrays: dict[str, np.ndarray]) -> Figure:
    classes = arrays["classes"].astype(str)
    names, counts = np.unique(classes, return_counts=True)
    common = counts >= min(FEWEST, counts.max())
    names, counts = names[common], counts[common]

    def by_class(name: str) -> list[float]:
        error = np.abs(arrays[f"grouped_{name}"] - arrays["entropy"])
        return [float(error[classes == label].mean()) for label in names]

    return plots.bars(
        [f"{name}\n({count})" for name, count in zip(names, counts, strict=True)],
        {TITLES[model]: by_class(model) for model in TITLES},
        f"test MAE ({UNIT})",
        markers={"class mean": by_class("class_mean")},
        lines={"goal (MEAM)": GOAL_MAE},
        title=f"{SPLITS['grouped']}; classes of {min(counts)} minima or more",
    )


def _named(arrays: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    points = zip(arrays["named_energy"], arrays["named_entropy"], strict=True)
    return {
        name: (float(energy), float(entropy))
        for name, (energy, entropy) in zip(arrays["named"].astype(str), points, strict=True)
    }
