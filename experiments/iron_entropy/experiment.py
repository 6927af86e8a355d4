"""Load minima, describe them, fit entropies linearly, and hold the fits to account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from physml import linear
from physml.atoms import descriptors, formation_entropy, relax
from physml.atoms.defects import NAMED, bcc
from physml.atoms.potentials import ackland_mendelev_2004
from physml.errors import ConfigError, DataError
from physml.progress import progress
from physml.run import Claim, Experiment, Results
from physml.train import Objective, Splits, TrainState

from . import dataset
from .config import PRESETS, Config
from .figures import figures

ALPHAS = 10.0 ** np.arange(-10.0, 4.5, 0.5)  # penalties, per row of the fit
MODELS = ("linear", "products", "random")  # names of the feature sets, simplest first
FRACTIONS = (0.125, 0.25, 0.5, 1.0)  # of the training rows, for the learning curve
ONE_SIGMA = 0.6827  # share of errors that a predictive bar should cover


def load(config: Config) -> Splits:
    """Descriptors, entropies and groups of all minima.

    Minima of the pool fix the whitening of the per-atom descriptors and take no other part.

    Raises:
        DataError, ConfigError: see `dataset.read`; fewer minima than folds.
    """
    found = dataset.read(config)
    groups = dataset.groups(found)
    if len(np.unique(groups)) < 4 * config.folds:
        what = f"hold {len(np.unique(groups))} distinct minima for {config.folds} folds"
        raise DataError("structures", what, f"give at least {4 * config.folds}")
    pool = _pool(groups, config)
    settings = {"n_max": config.n_max, "l_max": config.l_max, "cutoff": config.cutoff}
    bulk = descriptors.afs(found.crystal, **settings)[0]
    per_atom = lambda k: descriptors.afs(found.atoms[k], **settings)  # noqa: E731
    whitening = descriptors.whiten(np.concatenate([per_atom(k) for k in np.flatnonzero(pool)]))
    maps = _maps(config, whitening)
    kept = np.flatnonzero(~pool)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in MODELS}
    for k in progress(kept, "descriptors"):
        atoms = per_atom(k)
        for name, function in maps.items():
            rows[name].append(function(atoms) - len(atoms) * function(bulk[None]))
    features = {name: np.array(values) for name, values in rows.items()}
    return {
        "train": {
            "linear": features["linear"],
            "products": features["products"],
            "random": np.concatenate([features["products"], features["random"]], axis=1),
            "entropy": found.entropy[kept],
            "energy": found.energy[kept],
            "classes": found.classes[kept].astype("S4"),
            "groups": groups[kept],
        }
    }


def _pool(groups: np.ndarray, config: Config) -> np.ndarray:
    """Rows of whole groups, drawn at random until they hold the share `pool` of all minima."""
    if not 0 < config.pool < 0.5:
        raise ConfigError("--pool", f"is {config.pool}", "give a share between 0 and 0.5")
    rank = np.random.default_rng(config.seed).permutation(groups.max() + 1)[groups]
    filled = np.cumsum(np.bincount(rank))
    return rank <= np.searchsorted(filled, config.pool * len(groups))


def objective(config: Config) -> Objective:
    """Ridge regression of the entropy without intercept, penalty by exact leave-one-out."""

    def init(_key: Any, train: Mapping[str, np.ndarray]) -> TrainState:
        return TrainState(params={name: np.zeros(train[name].shape[1]) for name in MODELS})

    def step(
        state: TrainState, train: Mapping[str, np.ndarray]
    ) -> tuple[TrainState, dict[str, float]]:
        weights, metrics = {}, {}
        for name in MODELS:
            path = fit_ridge(train[name], train["entropy"])
            weights[name] = path.weights
            metrics[f"{name}_left_out_mae"] = float(path.loo_mae[path.best])
            metrics[f"{name}_log10_alpha"] = float(np.log10(path.alphas[path.best]))
        return state._replace(params=weights, step=state.step + 1), metrics

    def evaluate_rows(
        state: TrainState, rows: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        error = {name: rows[name] @ state.params[name] - rows["entropy"] for name in MODELS}
        return {f"{name}_mae": float(np.abs(e).mean()) for name, e in error.items()}

    return Objective(init, step, evaluate_rows)


def fit_ridge(
    features: np.ndarray, entropy: np.ndarray, groups: np.ndarray | None = None
) -> linear.RidgePath:
    """The one fit of this experiment; columns are brought to one scale, no intercept."""
    return linear.ridge_path(features, entropy, ALPHAS * len(entropy), groups, scale=True)


def evaluate(config: Config, state: TrainState, splits: Splits) -> Results:
    """Named defects against published entropies; errors of every model on minima left out."""
    train = splits["train"]
    entropy, groups = train["entropy"], train["groups"]
    splits_of = {
        "random": linear.grouped_folds(np.arange(len(entropy)), config.folds, config.seed),
        "grouped": linear.grouped_folds(groups, config.folds, config.seed),
    }
    numbers: dict[str, float] = named_entropies(config)
    arrays: dict[str, np.ndarray] = {
        "entropy": entropy,
        "energy": train["energy"],
        "classes": train["classes"],
    }
    for split, folds in splits_of.items():
        labels = groups if split == "grouped" else None
        baseline = class_means(train, folds)
        arrays[f"{split}_class_mean"] = baseline
        numbers |= _errors(f"{split}_class_mean", baseline, train)
        for name in progress(MODELS, f"{split} folds"):
            found = cross_validate(train[name], entropy, folds, labels)
            arrays[f"{split}_{name}"] = found.predictions
            arrays[f"{split}_{name}_bar"] = predictive_bars(found.predictions, train, folds)
            numbers |= _errors(f"{split}_{name}", found.predictions, train)
    return {"numbers": numbers, "arrays": arrays}
