"""A classifier as judge: the area under the ROC with which it tells two samples apart.

The protocol is that of the CaloChallenge (github CaloChallenge/homepage, code/evaluate.py): train
on one part of each sample, keep the epoch with the best accuracy on a second part, calibrate by
isotonic regression there, and take the area on a third part. Theirs runs in float64; this one in
float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from jaxtyping import Float32, Float64, Int64
from scipy.optimize import isotonic_regression

from physml import descent, metrics
from physml.calorimeter.distances import check_features
from physml.calorimeter.events import Showers
from physml.calorimeter.nets import Classifier
from physml.errors import ConfigError, DataError
from physml.options import Descent
from physml.train import Batch, Objective, TrainState, fit, in_batches

EDGE = 1e-6  # calibrated probabilities stay this far from 0 and 1


class Protocol(NamedTuple):
    """How the classifier is made, trained and read."""

    name: str
    widths: tuple[int, ...] = (2048, 2048, 2048)  # "2 layers" are 2 behind the first one there
    epochs: int = 50
    batch_size: int = 1000
    learning_rate: float = 2e-4  # of Adam
    train: float = 80 / 121  # shares of each sample: 80,000 of the 121,000 photons of set 1
    test: float = 20 / 121  # for the best epoch and the calibration; what is left gives the value


CHALLENGE = Protocol("challenge")
"""For set 1; in sets 2 and 3 the shares were 60 and 20 %: `_replace(train=0.6, test=0.2)`."""
REDUCED = Protocol("reduced, not comparable with the table", (128, 128), 8, 500, 1e-3)
"""For a CPU: seconds for ten thousand rows."""


class Auc(NamedTuple):
    """Area under the ROC: 0.5 when nothing tells the samples apart."""

    value: float
    error: float  # of the third part's finite size (DeLong); not of the training
    epoch: int  # the one kept, from 1
    rows: int  # of each sample in the third part
    protocol: str  # its name


def classifier_auc(
    reference: np.ndarray, generated: np.ndarray, seed: int = 0, protocol: Protocol = CHALLENGE
) -> Auc:
    """Chance that a trained classifier scores a real shower above a generated one.

    Args:
        reference: (n, f) features as the challenge takes them: `features.matrix` for the
            high-level area, `voxels` for the low-level one. They are not scaled.
        generated: (n, f).
        seed: of the split, the weights and the batches.
        protocol: `CHALLENGE`, `REDUCED`, or another; only the first is comparable.

    Raises:
        DataError: unlike numbers of rows, or too few for a batch; see `distances.check_features`.
        ConfigError: shares of the split that leave a part empty.
    """
    rows = needed(protocol)
    a, b = check_features(reference, generated, rows, "classifier")
    if len(a) != len(b):
        what = f"has {len(a)} reference and {len(b)} generated rows"
        raise DataError("classifier", what, "give as many of both")
    parts = [split_rows(len(a), seed, protocol, place) for place in (0, 1)]
    train, test, value = (
        _merged(a[real], b[made]) for real, made in zip(parts[0], parts[1], strict=True)
    )
    net = Classifier(protocol.widths)
    per_epoch = len(train["label"]) // protocol.batch_size
    best = fit(_objective(net, protocol, per_epoch), {"train": train, "validation": test}, seed)
    held_out = np.concatenate([test["x"], value["x"]])
    scores = np.split(_scores(net, best.best, held_out, protocol), [len(test["x"])])
    score = calibrate(scores[0], test["label"], scores[1])
    area, error = auc_error(score, value["label"] > 0)
    return Auc(
        area, error, int(best.best.step) // per_epoch, len(score) // 2, protocol.name
    )  # fmt: skip


def needed(protocol: Protocol) -> int:
    """Fewest rows of each sample: a batch to train on, and two for each other part.

    Raises:
        ConfigError: shares of the split that leave a part empty.
    """
    left = 1 - protocol.train - protocol.test
    if not min(protocol.train, protocol.test, left) > 0:
        what = f"splits {protocol.train:g}, {protocol.test:g}, {left:g}"
        raise ConfigError("protocol", what, "give shares above 0 whose sum is below 1")
    batch = protocol.batch_size / (2 * protocol.train)
    return int(np.ceil(max(batch, 2 / protocol.test, 2 / left))) + 1


def split_rows(
    n: int, seed: int, protocol: Protocol, sample: int
) -> tuple[Int64[np.ndarray, "a"], Int64[np.ndarray, "b"], Int64[np.ndarray, "c"]]:
    """Rows to train on, to test on and to take the value from: a partition of 0 to n - 1.

    A pure function of its arguments; `sample` is 0 for the reference and 1 for the generated.
    """
    order = np.random.default_rng([seed, sample]).permutation(n)
    ends = int(n * protocol.train), int(n * protocol.train) + int(n * protocol.test)
    return order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :]


def voxels(showers: Showers) -> np.ndarray:
    """Low-level features, (n, 1 + V) float32: log10 of the incident energy (MeV), 100 deposits/it.

    In the form of the challenge; a set of 100,000 showers of set 2 takes 2.6 GB.
    """
    energy, deposits = showers
    columns = np.empty((len(energy), 1 + deposits.shape[1]), np.float32)
    columns[:, 0] = np.log10(energy)
    np.divide(deposits, (energy[:, None] / 100).astype(np.float32), out=columns[:, 1:])
    return columns


def check_energies(
    reference: Float64[np.ndarray, "n"], generated: Float64[np.ndarray, "m"]
) -> None:
    """Refuse samples whose incident energies differ: a classifier would see that, not showers.

    Raises:
        DataError: the Kolmogorov-Smirnov test of the energies gives p < 1e-6.
    """
    found = scipy.stats.ks_2samp(reference, generated, method="asymp")
    if found.pvalue < 1e-6:
        what = f"have other incident energies (KS distance {found.statistic:.3f})"
        raise DataError("samples", what, "generate at the energies of the reference")


def auc_error(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Area under the ROC and its standard error, DeLong et al., Biometrics 44, 837 (1988).

    Args:
        scores: (n,), larger for the positives; ties count half.
        positive: (n,) boolean, two or more of each.
    """
    chance = []
    groups = scores[positive], scores[~positive]
    for mine, others in (groups, groups[::-1]):
        ordered = np.sort(others)
        sides = np.searchsorted(ordered, mine, "left"), np.searchsorted(ordered, mine, "right")
        chance.append((sides[0] + sides[1]) / (2 * len(others)))
    variance = sum(x.var(ddof=1) / len(x) for x in chance)
    return metrics.auc(scores, positive), float(np.sqrt(variance))


def calibrate(
    scores: np.ndarray, happened: np.ndarray, wanted: np.ndarray
) -> Float64[np.ndarray, "m"]:
    """Probabilities of scores, by isotonic regression: rising steps, straight lines between them.

    Args:
        scores: (n,) to learn from.
        happened: (n,) 1 or 0.
        wanted: (m,) scores to give probabilities; outside the learnt range, those of its ends.
    """
    at, place, rows = np.unique(scores, return_inverse=True, return_counts=True)
    share = np.bincount(place, happened) / rows
    steps = isotonic_regression(share, weights=rows).x
    return np.asarray(np.interp(wanted, at, np.clip(steps, EDGE, 1 - EDGE)))


def _merged(real: np.ndarray, made: np.ndarray) -> dict[str, np.ndarray]:
    label = np.repeat(np.array([1, 0], np.float32), [len(real), len(made)])
    return {"x": np.concatenate([real, made]).astype(np.float32), "label": label}


def _objective(net: Classifier, protocol: Protocol, per_epoch: int) -> Objective:
    options = Descent(
        steps=protocol.epochs * per_epoch, batch_size=protocol.batch_size,
        learning_rate=protocol.learning_rate, schedule="constant", warmup=0.0, clip=1e12,
        evaluate_every=per_epoch,
    )  # fmt: skip

    def per_row(params: Any, batch: Batch) -> dict[str, Any]:
        logit: Any = net.apply({"params": params}, batch["x"])
        loss = optax.sigmoid_binary_cross_entropy(logit, batch["label"])
        return {"loss": loss, "error": ((logit > 0) != (batch["label"] > 0)).astype(jnp.float32)}

    def loss(params: Any, batch: Batch, key: Any) -> tuple[Any, dict[str, Any]]:
        return per_row(params, batch)["loss"].mean(), {}

    def init(key: Any, train: Batch) -> Any:
        return net.init(key, train["x"][:1])["params"]

    return descent.objective(options, init, loss, per_row)._replace(monitor="error")


def _scores(
    net: Classifier, state: TrainState, x: Float32[np.ndarray, "n f"], protocol: Protocol
) -> Float64[np.ndarray, "n"]:
    apply = jax.jit(lambda batch: {"score": net.apply({"params": state.params}, batch["x"])})
    return in_batches(apply, {"x": x}, protocol.batch_size)["score"].astype(np.float64)
