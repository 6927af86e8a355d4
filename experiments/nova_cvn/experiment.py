"""Train a two-view classifier and measure it beside a logistic baseline, on events unseen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.special
from sklearn.manifold import TSNE

from physml import linear, metrics
from physml.claims import Claim
from physml.neutrino import nets
from physml.neutrino.events import CLASSES
from physml.neutrino.metrics import scan
from physml.neutrino.objective import objective as classifier
from physml.neutrino.objective import occlusion, predict, whole_maps
from physml.run import Experiment, Results
from physml.train import Objective, Splits, TrainState

from . import dataset
from .config import PRESETS, Config, check
from .figures import figures

MODELS = ("network", "baseline")
BASELINE_ROWS = 20_000  # training events of the logistic baseline: 5 x 20 weights need no more
CUTS = np.linspace(0.0, 1.0, 201)
EMBEDDED = 1000  # test events in the picture of the last layer
CHANGED = 4000  # test events that are made again with another detector


def load(config: Config) -> Splits:
    """Rows of train, validation and test; see `dataset.load`."""
    check(config)
    return dataset.load(config)


def network(config: Config) -> Any:
    """The network that the options name."""
    import jax.numpy as jnp

    common = {"classes": len(CLASSES), "dtype": jnp.bfloat16 if config.half else jnp.float32}
    if config.network == "googlenet":
        return nets.GoogLeNet(dropout=config.dropout, **common)
    if config.network == "mobilenet":
        return nets.MobileNetV2(dropout=config.dropout, **common)
    return nets.SparsePatchTransformer(
        width=config.width, layers=config.layers, dropout=config.dropout, **common
    )


def objective(config: Config) -> Objective:
    """Cross-entropy by gradient descent."""
    return classifier(network(config), config.descent, config.noise)


def evaluate(config: Config, state: TrainState, splits: Splits) -> Results:
    """Scores of the network and of the baseline on the test events, and what they are worth."""
    train, test = splits["train"], splits["test"]
    model = network(config)
    found = predict(model, state.params, test, config.descent.batch_size)
    chance = {
        "network": scipy.special.softmax(np.asarray(found.logits, np.float64), axis=1),
        "baseline": baseline(train, test),
    }
    numbers: dict[str, float] = {}
    arrays = {name: test[name] for name in ("label", "energy", "weight")}
    for name in MODELS:
        numbers |= {f"{name} {k}": v for k, v in score(chance[name], test).items()}
        arrays[f"chance {name}"] = chance[name].astype(np.float32)
    arrays |= embedded(np.asarray(found.embedding), test["label"])
    arrays |= displays(model, state.params, test)
    if config.data is None:
        arrays |= robustness(config, state, splits)
    numbers["majority class accuracy"] = float(
        np.bincount(test["label"]).max() / len(test["label"])
    )
    numbers["test events"] = float(len(test["label"]))
    numbers["events with patches left out"] = float((test["left_out"] > 0).mean())
    numbers["hits beyond the window per event"] = float(test["hits_beyond"].mean())
    return {"numbers": numbers, "arrays": arrays, "tables": {"scores": friend(test, chance)}}


def baseline(train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray]) -> np.ndarray:
    """Logistic regression on summed quantities (hits, energy, extent per view)."""
    rows = slice(0, BASELINE_ROWS)
    present, labels = np.unique(train["label"][rows], return_inverse=True)
    fitted = linear.logistic(train["summed"][rows], labels, scale=True)
    chance = np.zeros((len(test["summed"]), len(CLASSES)))
    chance[:, present] = linear.probabilities(fitted, test["summed"])
    return chance


def score(chance: np.ndarray, test: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Accuracy, AUC of each class against the others, calibration, best figures of merit."""
    label, guess = test["label"], chance.argmax(1)
    stated = metrics.reliability(chance.max(1), guess == label)
    numbers = {
        "accuracy": float((guess == label).mean()),
        "calibration error": metrics.calibration_error(stated),
    }
    for k, name in enumerate(CLASSES):
        if 0 < (label == k).sum() < len(label):
            numbers[f"{name} AUC"] = metrics.auc(chance[:, k], label == k)
    beam = label != CLASSES.index("cosmic")
    for k in (0, 1):
        if test["weight"][label == k].sum() > 0:
            found = scan(chance[beam, k], label[beam] == k, test["weight"][beam], CUTS)
            numbers[f"{CLASSES[k]} figure of merit"] = float(found.merit.max())
    return numbers


def embedded(embedding: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    """The last layer's input of some test events in two dimensions: t-SNE, JMLR 9, 2579 (2008)."""
    rows = slice(0, EMBEDDED)
    few = np.asarray(embedding[rows], np.float64)
    plane = TSNE(perplexity=min(30.0, len(few) / 4), random_state=0, init="pca").fit_transform(few)
    return {"embedding": plane, "embedding_label": label[rows]}


def displays(model: Any, params: Any, test: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One event of each class, and where hiding pixels lowers the score of that class."""
    shown, fallen, names = [], [], []
    for k, name in enumerate(CLASSES):
        rows = np.flatnonzero(test["label"] == k)
        if not len(rows):
            continue
        event = {key: test[key][rows[:1]] for key in ("tokens", "place", "mask")}
        shown.append(np.asarray(whole_maps(event))[0])
        fallen.append(occlusion(model, params, event, k))
        names.append(name)
    return {
        "display": np.array(shown),
        "occlusion": np.array(fallen),
        "display_class": np.array(names),
    }


def robustness(config: Config, state: TrainState, splits: Splits) -> dict[str, np.ndarray]:
    """Accuracy and AUC when the detector differs from the one trained on."""
    model, names, values = network(config), [], []
    for name, changed in dataset.changed(config, CHANGED).items():
        found = predict(model, state.params, changed, config.descent.batch_size)
        chance = {
            "network": scipy.special.softmax(np.asarray(found.logits, np.float64), axis=1),
            "baseline": baseline(splits["train"], changed),
        }
        names.append(name)
        values.append(
            [[score(chance[m], changed)[what] for what in ("accuracy", "nue AUC")] for m in MODELS]
        )
    return {"change": np.array(names), "change_score": np.array(values)}


def friend(
    test: Mapping[str, np.ndarray], chance: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Scores in the order of the events, with the four numbers that name each."""
    keys = {name: test[name] for name in ("run", "subrun", "event", "slice")}
    scores = {
        f"{'cvn' if model == 'network' else 'logistic'}_{name.lower()}": values[:, k]
        for model, values in chance.items()
        for k, name in enumerate(CLASSES)
    }
    return {**keys, **scores, "true_class": test["label"]}


OWN = "own event maker, no published value is comparable"
DEFAULT = (
    Claim("network accuracy", "", 0.775, 1.0, baseline="baseline accuracy", source=OWN),
    Claim("network numu AUC", "", 0.935, 1.0, baseline="baseline numu AUC", source=OWN),
    Claim("network nue AUC", "", 0.93, 1.0, baseline="baseline nue AUC", source=OWN),
    Claim("network cosmic AUC", "", 0.99, 1.0, baseline="baseline cosmic AUC", source=OWN),
    Claim(
        "network calibration error",
        "",
        0.0,
        0.03,
        source=OWN,
        baseline="baseline calibration error",
    ),
)

EXPERIMENT = Experiment(
    name="nova_cvn",
    presets=PRESETS,
    load=load,
    objective=objective,
    evaluate=evaluate,
    figures=figures,
    claims={
        "smoke": (
            Claim("network accuracy", "", 0.5, 1.0, baseline="baseline accuracy", source=OWN),
        ),
        "default": DEFAULT,
        # Never run here: it needs a GPU. It has to be as good as the default at least.
        "paper": DEFAULT,
    },
)
