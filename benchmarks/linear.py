"""Linear models beside scikit-learn and skglm: same data, one thread, CPU time, paired runs.

    python benchmarks/linear.py [--quick]

Every row alternates ours and the peer, prints the median CPU seconds and the median ratio, and how
far apart the two results are. Timed fits use each library's default tolerance; results are compared
with the peer solved tightly. A peer that is not installed is named and skipped.
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from types import ModuleType
from typing import Any

from timing import Pair, paired, pin_threads

pin_threads()

import numpy as np  # noqa: E402

from physml.linear import elastic_net_path, evidence, ridge_path  # noqa: E402

ROWS = 31_000
ALPHAS = np.logspace(-3, 4, 25)
L1_RATIO = 0.5


def peer(name: str) -> ModuleType | None:
    """Import a peer, or say that it is skipped."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name.split('.')[0]}: not installed, skipped")
        return None


def problem(n: int, p: int, collinear: bool) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features (neighbouring columns 0.50), or p columns near p/10 dimensions."""
    rng = np.random.default_rng(p)
    if collinear:
        rank = max(5, p // 10)
        x = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, p))
        x += 0.1 * rng.standard_normal((n, p))
        x /= x.std(axis=0)
    else:
        x = rng.standard_normal((n, p))
        x[:, 1:] += 0.9 * x[:, :-1].copy()
    weights = np.where(rng.random(p) < 0.2, rng.standard_normal(p), 0.0)
    y = x @ weights
    return x, y + 0.1 * y.std() * rng.standard_normal(n)


def row(what: str, p: int, pair: Pair, target: float, agreement: str) -> None:
    """Print one line of the table."""
    mark = "ok" if pair.ratio >= target else "MISSED"
    head = f"{what:<37} p={p:<5} {pair.ours.cpu:9.4f} {pair.peer.cpu:9.4f} {pair.ratio:7.1f}x"
    print(f"{head} (>= {target:g}x {mark})  {agreement}", flush=True)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference relative to the largest entry."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def ridge_row(linear_model: Any, x: np.ndarray, y: np.ndarray, repeats: int) -> None:
    """Ridge path with exact leave-one-out against RidgeCV."""
    path = ridge_path(x, y, ALPHAS)
    fitted: list[Any] = []

    def other() -> None:
        fitted.append(linear_model.RidgeCV(ALPHAS, fit_intercept=False).fit(x, y))

    times = paired(lambda: ridge_path(x, y, ALPHAS), other, repeats, warmup=0)
    model = fitted[-1]
    score = abs(path.loo_rmse[path.best] ** 2 / -model.best_score_ - 1)
    same = "same alpha" if model.alpha_ == path.alphas[path.best] else "OTHER ALPHA"
    agreement = f"{same}, coef {apart(path.weights, model.coef_):.0e}, LOO {score:.0e}"
    agreement += f", condition {path.condition:.0f}, {path.method}"
    row("ridge path + LOO / RidgeCV", x.shape[1], times, 8, agreement)


def evidence_row(linear_model: Any, x: np.ndarray, y: np.ndarray, repeats: int) -> None:
    """Evidence maximisation against BayesianRidge."""
    ours = evidence(x, y)
    bayes = linear_model.BayesianRidge

    def other() -> None:
        bayes(fit_intercept=False).fit(x, y)

    times = paired(lambda: evidence(x, y), other, repeats, warmup=0)
    tight = bayes(fit_intercept=False, tol=1e-13, max_iter=1000).fit(x, y)
    noise = abs(ours.noise_precision / tight.alpha_ - 1)
    prior = abs(ours.weight_precision / tight.lambda_ - 1)
    agreement = f"coef {apart(ours.weights, tight.coef_):.0e}, noise {noise:.0e}, prior {prior:.0e}"
    row("evidence / BayesianRidge", x.shape[1], times, 7, agreement)


def objective(x: np.ndarray, y: np.ndarray, w: np.ndarray, alpha: float) -> float:
    """Elastic-net objective from the residual, not from the Gram matrix."""
    penalty = L1_RATIO * np.abs(w).sum() + 0.5 * (1 - L1_RATIO) * (w @ w)
    return float(0.5 * np.mean((y - x @ w) ** 2) + alpha * penalty)


def elastic_net_rows(
    linear_model: Any | None,
    skglm: Any | None,
    x: np.ndarray,
    y: np.ndarray,
    kind: str,
    repeats: int,
) -> None:
    """Elastic net at alpha_max / 100 against scikit-learn and skglm at their default tolerance."""
    n, p = x.shape
    alpha = float(np.abs(x.T @ y).max()) / (n * L1_RATIO) / 100
    path = elastic_net_path(x, y, L1_RATIO, [alpha])
    weights, fitted = path.coef[0], []

    def ours() -> None:
        elastic_net_path(x, y, L1_RATIO, [alpha])

    def report(name: str, module: Any, target: float, times: int) -> None:
        def other() -> None:
            model = module.ElasticNet(alpha, l1_ratio=L1_RATIO, fit_intercept=False)
            fitted.append(model.fit(x, y))

        result = paired(ours, other, times, warmup=0)
        mine = objective(x, y, weights, alpha)
        excess = objective(x, y, fitted[-1].coef_.ravel(), alpha) / mine - 1
        agreement = f"its objective {excess:+.0e}, our gap {path.gaps[0] / mine:.0e}"
        if linear_model is not None:
            agreement += f", coef to tight scikit-learn {apart(weights, tight):.0e}"
        row(f"elastic net{kind} / {name}", p, result, target, agreement)

    if linear_model is not None:
        options = {"fit_intercept": False, "precompute": x.T @ x, "tol": 1e-15, "max_iter": 30_000}
        tight = linear_model.ElasticNet(alpha, l1_ratio=L1_RATIO, **options).fit(x, y).coef_
        report("scikit-learn", linear_model, 5, repeats)
    if skglm is not None:
        report("skglm", skglm, 1, max(repeats, 3))


def main() -> None:
    """Print versions and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows, no p = 1000")
    quick = parser.parse_args().quick
    linear_model, skglm = peer("sklearn.linear_model"), peer("skglm")
    versions = [m.__name__.split(".")[0] for m in (linear_model, skglm) if m is not None]
    found = ", ".join(f"{name} {importlib.import_module(name).__version__}" for name in versions)
    rows = 4000 if quick else ROWS
    print(f"numpy {np.__version__}, {found}; {rows} rows, one thread, CPU seconds")
    print(f"{'ours / peer':<37} {'':7} {'ours':>9} {'peer':>9} {'ratio':>8}")
    warnings.simplefilter("ignore")  # peers report tolerances that float64 cannot reach
    if skglm is not None:  # compiles on the first call
        skglm.ElasticNet(0.1, fit_intercept=False).fit(*problem(200, 5, False))
    for p in (33, 300) if quick else (33, 300, 1000):
        repeats = 1 if p == 1000 else 3 if p == 300 else 9
        x, y = problem(rows, p, collinear=False)
        if linear_model is not None:
            ridge_row(linear_model, x, y, repeats)
            evidence_row(linear_model, x, y, max(repeats, 3))
        elastic_net_rows(linear_model, skglm, x, y, "", repeats)
        if p >= 300:
            x, y = problem(rows, p, collinear=True)
            elastic_net_rows(linear_model, skglm, x, y, ", collinear", repeats)


if __name__ == "__main__":
    main()
