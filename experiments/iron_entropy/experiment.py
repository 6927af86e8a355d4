"""Load minima, describe them, fit entropies linearly, and hold the fits to account."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from physml import linear
from physml.atoms import afs, canary, extensive, formation_entropy, relax
from physml.atoms.defects import NAMED, bcc
from physml.atoms.potentials import ackland_mendelev_2004
from physml.atoms.potentials import evaluate as evaluate_energies
from physml.claims import Claim
from physml.errors import ConfigError, DataError
from physml.progress import progress
from physml.run import Experiment, Results
from physml.train import Objective, Splits, TrainState

from . import dataset
from .config import PRESETS, Config, check
from .figures import figures

# Penalties per row of the fit, on columns of unit size: ranges that hold the best one well inside.
RICH = 10.0 ** np.arange(-4.0, 1.5, 0.5)
ALPHAS = {"linear": 10.0 ** np.arange(-13.0, -3.0, 0.5), "products": RICH, "random": RICH}
MODELS = tuple(ALPHAS)  # names of the feature sets, simplest first
FEWEST = 20  # rows that a point of the learning curve is fitted to
FRACTIONS = (0.125, 0.25, 0.5, 1.0)  # of the training rows, for the learning curve
TEMPERATURE = 1000.0  # K, of the published entropies
ONE_SIGMA = 0.6827  # share of errors that a predictive bar should cover


def load(config: Config) -> Splits:
    """Descriptors, entropies and groups of all minima.

    Minima of the pool fix the whitening of the per-atom descriptors and take no other part.

    Raises:
        DataError, ConfigError: see `dataset.read`; too few distinct minima for the folds.
    """
    check(config)
    found = dataset.read(config)
    groups = dataset.groups(found)
    if len(np.unique(groups)) < 4 * config.folds:
        what = f"hold {len(np.unique(groups))} distinct minima for {config.folds} folds"
        raise DataError("structures", what, f"give at least {4 * config.folds}")
    pool = _pool(groups, config)
    maps = feature_maps(config, found, np.flatnonzero(pool))
    kept = np.flatnonzero(~pool)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in MODELS}
    for k in progress(kept, "descriptors"):
        atoms = per_atom(config, found.atoms[k])
        for name, function in maps.items():
            rows[name].append(function(atoms))
    classes = found.classes[kept]
    return {
        "train": {
            **{name: np.array(values) for name, values in rows.items()},
            "entropy": found.entropy[kept],
            "energy": found.energy[kept],
            "classes": classes.astype("S4"),
            "kinds": np.char.startswith(classes, "V").astype(np.int32),
            "groups": groups[kept],
        }
    }


def per_atom(config: Config, atoms: Atoms) -> np.ndarray:
    """Angular Fourier series of each atom, (n, columns)."""
    return afs(atoms, n_max=config.n_max, l_max=config.l_max, cutoff=config.cutoff)


def feature_maps(
    config: Config, found: dataset.Minima, pool: np.ndarray
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Functions from per-atom descriptors to the features of each model, bulk subtracted."""
    bulk = per_atom(config, found.crystal)
    if not np.allclose(bulk, bulk[0], rtol=1e-6, atol=1e-6 * np.abs(bulk).max()):
        what = "has atoms in unlike surroundings"
        raise DataError(config.bulk or "perfect crystal", what, "give the crystal without defects")
    bulk = bulk[:1]
    whitening = extensive.whiten(np.concatenate([per_atom(config, found.atoms[k]) for k in pool]))
    size = whitening.components.shape[1]
    for option in ("products", "random_components"):
        if getattr(config, option) > size:
            what = f"is {getattr(config, option)}, and {size} components rise above rounding"
            remedy = f"give 1 to {size}, or a larger --cutoff, --n-max or --pool"
            raise ConfigError(f"--{option.replace('_', '-')}", what, remedy)
    waves = extensive.cosines(
        config.random_components, config.random_features, config.random_scale, config.seed
    )

    def products(atoms: np.ndarray) -> np.ndarray:
        return extensive.product_sums(atoms, whitening, config.products)

    def waves_too(atoms: np.ndarray) -> np.ndarray:
        return np.concatenate([products(atoms), extensive.cosine_sums(atoms, whitening, waves)])

    sums = {"linear": lambda atoms: atoms.sum(axis=0), "products": products, "random": waves_too}
    return {name: _minus_bulk(function, bulk) for name, function in sums.items()}


def _minus_bulk(
    function: Callable[[np.ndarray], np.ndarray], bulk: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    perfect = function(bulk)
    return lambda atoms: function(atoms) - len(atoms) * perfect


def _pool(groups: np.ndarray, config: Config) -> np.ndarray:
    """Rows of whole groups, drawn at random until they hold the share `pool` of all minima."""
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
            path = linear.weighted_ridge(
                train[name], train["entropy"], _alphas(name, train), train["kinds"], scale=True
            )
            weights[name] = path.weights
            metrics[f"{name}_left_out_mae"] = float(path.loo_mae[path.best])
            metrics[f"{name}_log10_alpha"] = float(np.log10(path.alphas[path.best]))
        return state._replace(params=weights, step=state.step + 1), metrics

    def evaluate_rows(state: TrainState, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        error = {name: rows[name] @ state.params[name] - rows["entropy"] for name in MODELS}
        return {f"{name}_mae": float(np.abs(e).mean()) for name, e in error.items()}

    return Objective(init, step, evaluate_rows, compiled=False)


def _alphas(name: str, train: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(ALPHAS[name] * len(train["entropy"]))


def evaluate(config: Config, state: TrainState, splits: Splits) -> Results:
    """Named defects against published entropies; errors of every model on minima left out.

    Two splits: "random" deals out single minima, "grouped" keeps near-copies together. In both,
    the penalty is chosen inside the training folds.
    """
    train = splits["train"]
    numbers, arrays = named_entropies(config)
    arrays |= {name: train[name] for name in ("entropy", "energy", "classes")}
    for name in MODELS:
        arrays[f"fitted_{name}"] = train[name] @ state.params[name]
    rows = np.arange(len(train["entropy"]))
    for split, groups in (("random", None), ("grouped", train["groups"])):
        folds = linear.grouped_folds(rows if groups is None else groups, config.folds, config.seed)
        predictions = {"class_mean": class_means(train, folds)}
        for name in progress(MODELS, f"{split} folds"):
            found = linear.cross_predict(
                train[name], train["entropy"], _alphas(name, train), folds, groups,
                noise=train["kinds"], scale=True,
            )  # fmt: skip
            predictions[name] = found.predictions
            arrays[f"{split}_{name}_bar"] = predictive_bars(found.predictions, train, folds)
        for name, values in predictions.items():
            arrays[f"{split}_{name}"] = values
            numbers |= errors(f"{split} {name}", values, train)
    arrays |= learning_curves(config, train)
    numbers["minima"] = float(len(train["entropy"]))
    return {"numbers": numbers, "arrays": arrays}


def named_entropies(config: Config) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Relax well-known defects and compute their formation energies and entropies."""
    crystal, potential = bcc(8), ackland_mendelev_2004()
    names = list(NAMED)
    first = ("V4 tetrahedron", "I2 parallel 110 dumbbells")  # the published ones
    count = config.named if config.structures is None else 0  # they are of this potential at 1000 K
    names = [*first, *(n for n in names if n not in first)][:count]
    bulk = float(evaluate_energies(crystal, potential)[0].sum())
    numbers, energies = {}, []
    for name in progress(names, "named defects"):
        atoms = relax(NAMED[name](crystal), potential)
        numbers[f"entropy {name}"] = formation_entropy(atoms, crystal, potential, TEMPERATURE)
        energy = float(evaluate_energies(atoms, potential)[0].sum())
        energies.append(energy - len(atoms) / len(crystal) * bulk)
    return numbers, {
        "named": np.array(names, dtype="S40"),
        "named_energy": np.array(energies),
        "named_entropy": np.array([numbers[f"entropy {name}"] for name in names]),
    }


def class_means(train: Mapping[str, np.ndarray], folds: Sequence[linear.Fold]) -> np.ndarray:
    """The trivial predictor: the mean entropy of the training minima of the same class."""
    entropy, classes = train["entropy"], train["classes"]
    found = np.empty(len(entropy))
    for fit, test in folds:
        for row in test:
            same = fit[classes[fit] == classes[row]]
            found[row] = entropy[same if len(same) else fit].mean()
    return found


def predictive_bars(
    predictions: np.ndarray, train: Mapping[str, np.ndarray], folds: Sequence[linear.Fold]
) -> np.ndarray:
    """Half-width, kB, that covered 68.3 % of the errors on the same class in the other folds."""
    error, classes = np.abs(predictions - train["entropy"]), train["classes"]
    bars = np.empty(len(error))
    for fit, test in folds:
        for name in np.unique(classes[test]):
            same = fit[classes[fit] == name]
            bars[test[classes[test] == name]] = np.quantile(
                error[same if len(same) > 5 else fit], ONE_SIGMA
            )
    return bars


def errors(name: str, predictions: np.ndarray, train: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean absolute and root mean square errors, kB: all, interstitials, vacancies, by class."""
    error, classes = predictions - train["entropy"], train["classes"].astype(str)
    numbers = {
        f"{name} MAE": float(np.abs(error).mean()),
        f"{name} RMSE": float(np.sqrt(np.mean(error**2))),
    }
    for label, rows in (("vacancies", train["kinds"] == 1), ("interstitials", train["kinds"] == 0)):
        if rows.any():
            numbers[f"{name} {label} MAE"] = float(np.abs(error[rows]).mean())
    for label in np.unique(classes):
        numbers[f"{name} {label} MAE"] = float(np.abs(error[classes == label]).mean())
    return numbers


def learning_curves(config: Config, train: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Test error of every model on growing shares of the training groups, per fold."""
    folds = linear.grouped_folds(train["groups"], config.folds, config.seed)
    fewest = min(len(fit) for fit, _ in folds)
    fractions = [part for part in FRACTIONS if part == 1.0 or part * fewest >= FEWEST]
    arrays = {}
    for name in progress(MODELS, "learning curves"):
        curve = linear.learning_curve(
            train[name], train["entropy"], _alphas(name, train), folds, fractions, train["groups"],
            noise=train["kinds"], seed=config.seed, scale=True,
        )  # fmt: skip
        arrays[f"curve_sizes_{name}"] = curve.sizes
        arrays[f"curve_mae_{name}"] = curve.mae
    return arrays


PUBLISHED = "V4, I2: data set of Phys. Rev. Materials 4, 063802 (2020), EAM entropies"
GOAL = "0.18 kB: attributed to the same paper for A_{3,10} on MEAM entropies, our goal"
NAMED_CLAIMS = (
    Claim("entropy V4 tetrahedron", "kB", 7.88792, 7.88992, 7.88892, PUBLISHED),
    Claim("entropy I2 parallel 110 dumbbells", "kB", 1.76194, 1.76394, 1.76294, PUBLISHED),
)


def _error_claim(number: str, low: float, high: float) -> Claim:
    """Claim of a mean absolute error beside that of the class mean in the same folds."""
    split, model, *rest = number.split(" ")
    baseline = " ".join([split, "class_mean", *rest])
    return Claim(number, "kB", low, high, 0.18, GOAL, baseline)


EXPERIMENT = Experiment(
    name="iron_entropy",
    presets=PRESETS,
    load=load,
    objective=objective,
    evaluate=evaluate,
    figures=figures,
    kernels=canary.kernels,
    groups=lambda config, splits: splits["train"]["groups"],
    claims={
        "smoke": (*NAMED_CLAIMS, _error_claim("grouped products MAE", 0.4, 0.9)),
        "default": (
            *NAMED_CLAIMS,
            _error_claim("grouped linear vacancies MAE", 0.0, 0.25),
            _error_claim("grouped linear MAE", 0.75, 0.9),
            _error_claim("grouped random MAE", 0.4, 0.47),
            _error_claim("random random MAE", 0.4, 0.49),
        ),
        "paper": NAMED_CLAIMS,
    },
)
