"""Linear models against refits, closed forms, scikit-learn and SciPy."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal

from physml import linear
from physml.errors import ConfigError, DataError, TrainingError
from physml.linear.elastic_net import Quadratic, duality_gap

ALPHAS = np.logspace(-4, 3, 6)


def data(n: int, p: int, seed: int = 0, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features, a sparse truth and noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, p)) + 0.7 * rng.standard_normal((n, 1))
    weights = np.where(np.arange(p) % 3 == 0, rng.standard_normal(p), 0.0)
    return x, x @ weights + 0.3 * rng.standard_normal(n) + offset


def refit(x, y, alpha, intercept=False):
    """Ridge as augmented least squares: rows sqrt(alpha) I below X; a bias column unpenalised."""
    p = x.shape[1]
    design = np.column_stack([x, np.ones(len(x))]) if intercept else x
    penalty = np.sqrt(alpha) * np.eye(p, design.shape[1])
    solution = np.linalg.lstsq(
        np.concatenate([design, penalty]), np.concatenate([y, np.zeros(p)]), rcond=None
    )[0]
    return solution[:p], float(solution[p]) if intercept else 0.0


def left_out(x, y, alpha, groups, intercept=False):
    """Leave-group-out residuals by brute force."""
    out = np.empty_like(y)
    for g in np.unique(groups):
        held = groups == g
        w, b = refit(x[~held], y[~held], alpha, intercept)
        out[held] = y[held] - x[held] @ w - b
    return out


def ill_conditioned(condition: float, n: int = 2000, p: int = 20):
    """Exact data y = X w with singular values from 1 down to 1 / condition."""
    rng = np.random.default_rng(3)
    u = np.linalg.qr(rng.standard_normal((n, p)))[0]
    v = np.linalg.qr(rng.standard_normal((p, p)))[0]
    x = (u * np.geomspace(1, 1 / condition, p)) @ v.T
    return x, rng.standard_normal(p)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize(("n", "p"), [(40, 6), (31, 30), (30, 30), (20, 45)])
def test_ridge_path_is_refitting_without_each_row(n, p, intercept):
    x, y = data(n, p, offset=3.0)
    path = linear.ridge_path(x, y, ALPHAS, fit_intercept=intercept)
    for k, alpha in enumerate(ALPHAS):
        w, b = refit(x, y, alpha, intercept)
        assert_allclose(path.coef[k], w, rtol=0, atol=1e-8 * np.abs(w).max())
        assert_allclose(path.intercepts[k], b, rtol=1e-8, atol=1e-12)
        expected = left_out(x, y, alpha, np.arange(n), intercept)
        assert_allclose(path.loo_residuals[k], expected, rtol=0, atol=1e-8 * np.ptp(expected))
    assert_allclose(path.loo_rmse, np.sqrt((path.loo_residuals**2).mean(axis=1)), rtol=1e-12)
    assert_allclose(path.loo_mae, np.abs(path.loo_residuals).mean(axis=1), rtol=1e-12)
    assert path.best == path.loo_rmse.argmin()
    assert path.criterion == "smallest leave-one-out RMSE"
    assert_array_equal(path.weights, path.coef[path.best])


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize(("n", "p"), [(60, 4), (40, 12), (24, 50)])
def test_ridge_path_is_refitting_without_each_group(n, p, intercept):
    x, y = data(n, p, offset=1.0)
    # Sizes 1, 2, 2 and large ones: both sides of the block formula (m <= p and m > p).
    groups = np.array(["a", "b", "b", "c", "c", *np.array(["d", "e"])[np.arange(n - 5) % 2]])
    path = linear.ridge_path(x, y, ALPHAS, groups, fit_intercept=intercept)
    for k, alpha in enumerate(ALPHAS):
        expected = left_out(x, y, alpha, groups, intercept)
        assert_allclose(path.loo_residuals[k], expected, rtol=0, atol=1e-8 * np.ptp(expected))
    assert path.criterion == "smallest leave-one-group-out RMSE"


def test_groups_of_one_are_rows_and_rows_may_come_in_any_order():
    x, y = data(50, 8)
    rows = linear.ridge_path(x, y, ALPHAS)
    order = np.random.default_rng(0).permutation(50)
    groups = linear.ridge_path(x[order], y[order], ALPHAS, order)
    assert_allclose(groups.loo_residuals, rows.loo_residuals[:, order], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("condition", [1e2, 1e6])
def test_ridge_path_agrees_with_sklearn(condition):
    models = pytest.importorskip("sklearn.linear_model")
    x, w = ill_conditioned(condition, n=300)
    y = x @ w + 1e-3 * np.random.default_rng(0).standard_normal(300)
    alphas = np.logspace(-12, 0, 13)
    path = linear.ridge_path(x, y, alphas)
    for k, alpha in enumerate(alphas):
        model = models.Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(x, y)
        assert np.abs(path.coef[k] - model.coef_).max() <= 1e-8 * np.abs(model.coef_).max()
    model = models.RidgeCV(alphas, fit_intercept=False).fit(x, y)
    assert path.alphas[path.best] == model.alpha_
    assert_allclose(path.loo_rmse[path.best] ** 2, -model.best_score_, rtol=1e-8)
    assert_allclose(path.condition, condition, rtol=1e-6)
    assert path.method == ("gram" if condition == 1e2 else "qr-svd")


@pytest.mark.parametrize(("condition", "bound"), [(1e3, 1e-10), (1e6, 1e-9), (1e8, 1e-7)])
def test_precision_trap_is_avoided(condition, bound):
    x, w = ill_conditioned(condition)
    path = linear.ridge_path(x, x @ w, [0.0])
    assert np.abs(path.weights - w).max() <= bound * np.abs(w).max()
    assert_allclose(path.condition, condition, rtol=1e-6)
    normal = np.linalg.solve(x.T @ x, x.T @ (x @ w))
    if condition == 1e8:  # so that the case is as hard as it is meant to be
        assert np.abs(normal - w).max() > 1e-2 * np.abs(w).max()


def test_a_large_penalty_makes_the_gram_matrix_enough():
    x, w = ill_conditioned(1e8)
    path = linear.ridge_path(x, x @ w, [1e-6, 1.0])
    assert path.method == "gram" and path.rank == 20
    assert_allclose(path.condition, 1e8, rtol=1e-4)
    net = linear.elastic_net_path(x, x @ w, 0.5, [1e-4])
    assert net.rank == 20
    assert_allclose(net.condition, 1e8, rtol=1e-4)
    for k, alpha in enumerate(path.alphas):
        expected, _ = refit(x, x @ w, alpha)
        assert_allclose(path.coef[k], expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def test_closed_form_of_orthogonal_columns_and_of_one_column():
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 5)))[0]
    y = np.arange(30.0)
    path = linear.ridge_path(q, y, [0.0, 1.0, 3.0])
    expected = [q.T @ y / (1 + a) for a in (0, 1, 3)]
    assert_allclose(path.coef, expected, rtol=1e-12, atol=1e-12)
    # The mean, left out: y_i - mean of the others = (y_i - mean) n / (n - 1).
    mean = linear.ridge_path(np.ones((30, 1)), y, [0.0])
    assert_allclose(mean.loo_residuals[0], (y - y.mean()) * 30 / 29, rtol=1e-12)


def test_prediction_is_extensive_and_columns_may_change_units():
    x, y = data(80, 6)
    units = np.array([1e-6, 1.0, 1e5, 3.0, 1e3, 1e-2])
    for path in (linear.ridge_path(x, y, ALPHAS), linear.evidence(x, y)):
        assert path.intercept == 0.0
        assert_allclose(linear.predict(path, 2 * x), 2 * linear.predict(path, x), rtol=1e-14)
    scaled = linear.ridge_path(x, y, ALPHAS, scale=True)
    other = linear.ridge_path(x * units, y, ALPHAS, scale=True)
    assert_allclose(other.coef * units, scaled.coef, rtol=1e-10)
    assert_allclose(other.loo_rmse, scaled.loo_rmse, rtol=1e-12)
    assert_allclose(linear.predict(other, 2 * x * units), 2 * linear.predict(scaled, x), rtol=1e-10)
    rms = np.sqrt((x**2).mean(axis=0))
    plain = linear.ridge_path(x / rms, y, ALPHAS)
    assert_allclose(scaled.coef * rms, plain.coef, rtol=1e-10)


def test_float64_whatever_the_jax_flag_says():
    x, y = data(100, 5)
    expected = linear.ridge_path(x, y, ALPHAS).coef
    for flag in (False, True):
        with jax.enable_x64(flag):
            assert_array_equal(linear.ridge_path(x, y, ALPHAS).coef, expected)
    single = linear.ridge_path(jnp.asarray(x, dtype=jnp.float32), jnp.asarray(y), ALPHAS)
    assert single.coef.dtype == np.float64
    assert_array_equal(single.coef, linear.ridge_path(x.astype("f4"), y.astype("f4"), ALPHAS).coef)


def test_dependent_columns_and_fewer_rows_than_columns_stay_finite():
    x, y = data(40, 5)
    twice = linear.ridge_path(np.concatenate([x, x[:, :2], np.zeros((40, 1))], axis=1), y, [1e-9])
    once = linear.ridge_path(x, y, [1e-9])
    assert twice.rank == 5 and twice.condition == np.inf
    assert_allclose(twice.weights[:2], twice.weights[5:7], rtol=1e-8)
    assert_allclose(twice.weights[:2] * 2, once.weights[:2], rtol=1e-6)
    assert twice.weights[7] == 0
    wide, target = data(10, 40)
    path = linear.ridge_path(wide, target, [1e-10])
    assert path.rank == 10 and np.isfinite(path.condition)
    least, *_ = np.linalg.lstsq(wide, target, rcond=None)
    assert_allclose(path.weights, least, rtol=0, atol=1e-8 * np.abs(least).max())
    empty = linear.ridge_path(np.zeros((5, 2)), np.arange(5.0), [1.0])
    assert empty.rank == 0 and empty.condition == np.inf
    assert_array_equal(empty.weights, 0.0)
    assert_array_equal(empty.loo_residuals[0], np.arange(5.0))


def test_a_row_that_alone_carries_a_column_is_unresolved_not_nan():
    x, y = data(30, 3)
    x = np.column_stack([x, np.eye(30)[0]])
    path = linear.ridge_path(x, y, [0.0, 1.0])
    assert path.loo_rmse[0] == np.inf and path.best == 1
    assert_allclose(path.loo_residuals[1], left_out(x, y, 1.0, np.arange(30)), rtol=1e-8)
    groups = np.arange(30) // 3
    assert linear.ridge_path(x, y, [0.0, 1.0], groups).loo_rmse[0] == np.inf
    with pytest.raises(DataError, match="not defined at any alpha"):
        linear.ridge_path(x, y, [0.0])


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize(("n", "p"), [(200, 12), (25, 40)])
def test_evidence_agrees_with_sklearn(n, p, intercept):
    models = pytest.importorskip("sklearn.linear_model")
    x, y = data(n, p, offset=2.0)
    ours = linear.evidence(x, y, fit_intercept=intercept)
    model = models.BayesianRidge(
        fit_intercept=intercept, tol=1e-14, max_iter=20_000, compute_score=True
    ).fit(x, y)
    assert_allclose(ours.weights, model.coef_, rtol=0, atol=1e-8 * np.abs(model.coef_).max())
    assert_allclose(ours.noise_precision, model.alpha_, rtol=1e-8)
    assert_allclose(ours.weight_precision, model.lambda_, rtol=1e-8)
    assert_allclose(ours.intercept, model.intercept_, rtol=1e-8, atol=1e-12)
    assert_allclose(ours.log_evidence, model.scores_[-1], rtol=1e-8)
    new = data(7, p, seed=5)[0]
    mean, std = model.predict(new, return_std=True)
    assert_allclose(linear.predict(ours, new), mean, rtol=1e-8)
    # scikit-learn leaves out the uncertainty of the intercept, noise variance / n.
    flat = 1 / (n * model.alpha_) if intercept else 0.0
    assert_allclose(linear.predictive_std(ours, new), np.sqrt(std**2 + flat), rtol=1e-8)


def test_evidence_is_a_maximum_of_the_marginal_likelihood():
    x, y = data(60, 5)
    ours = linear.evidence(x, y, hyper=(0, 0, 0, 0))

    def negative(log_precisions):
        noise, prior = np.exp(log_precisions)
        cov = np.eye(60) / noise + x @ x.T / prior
        return -scipy.stats.multivariate_normal(np.zeros(60), cov).logpdf(y)

    start = np.log([ours.noise_precision, ours.weight_precision])
    assert_allclose(-negative(start), ours.log_evidence, rtol=1e-10)
    assert_allclose(scipy.optimize.approx_fprime(start, negative, 1e-5), 0, atol=1e-3)


@pytest.mark.parametrize("n", [200, 15])
def test_evidence_at_high_condition_and_with_dependent_columns(n):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, 20)) * np.geomspace(1, 1e-10, 20)
    y = x[:, 0] + 0.1 * rng.standard_normal(n)
    for columns in (x, np.concatenate([x, x[:, :3]], axis=1)):
        ours = linear.evidence(columns, y)
        assert np.isfinite(ours.weights).all()
        noise, prior = ours.noise_precision, ours.weight_precision
        assert 5 < noise < 500
        cov = np.eye(n) / noise + columns @ columns.T / prior
        assert_allclose(ours.weights, columns.T @ np.linalg.solve(cov, y) / prior, atol=1e-8)
        expected = (
            noise**-1
            + np.einsum(
                "ij,ij->i",
                columns,
                columns - (columns @ columns.T / prior) @ np.linalg.solve(cov, columns),
            )
            / prior
        )
        assert_allclose(linear.predictive_std(ours, columns) ** 2, expected, rtol=1e-8)


def lasso_dual(x, y, l1, l2):
    """Best dual value of the elastic net by SciPy: bounded quadratic problem in the weights' signs.

    w = a - b with a, b >= 0 makes the primal smooth; strong duality gives the same value.
    """
    n, p = x.shape

    def value(ab):
        w = ab[:p] - ab[p:]
        r = y - x @ w
        gradient = -x.T @ r / n + l2 * w
        return (
            0.5 * (r @ r) / n + l1 * ab.sum() + 0.5 * l2 * (w @ w),
            np.concatenate([gradient + l1, l1 - gradient]),
        )

    bounds = [(0, None)] * (2 * p)
    options = {"maxiter": 20_000, "ftol": 1e-16, "gtol": 1e-12}
    return scipy.optimize.minimize(
        value, np.zeros(2 * p), jac=True, bounds=bounds, method="L-BFGS-B", options=options
    ).fun


@pytest.mark.parametrize("l1_ratio", [0.3, 1.0])
def test_duality_gap_is_primal_minus_a_feasible_dual_value(l1_ratio):
    x, y = data(50, 8)
    alpha, n = 0.1, 50
    l1, l2 = alpha * l1_ratio, alpha * (1 - l1_ratio)
    best = lasso_dual(x, y, l1, l2)
    q = Quadratic(x.T @ x / n, x.T @ y / n, float(y @ y) / n)
    rng = np.random.default_rng(0)
    for w in (np.zeros(8), rng.standard_normal(8), refit(x, y, 1.0)[0]):
        # The dual written out: maximise |y|^2/2n - n |theta - y/n|^2 / 2 over |X~^T theta| <= l1.
        rows = np.concatenate([x, np.sqrt(n * l2) * np.eye(8)])
        target = np.concatenate([y, np.zeros(8)])
        residual = (target - rows @ w) / n
        theta = residual * min(1.0, l1 / np.abs(rows.T @ residual).max())
        dual = 0.5 * (target @ target) / n - 0.5 * n * np.sum((theta - target / n) ** 2)
        primal = 0.5 * n * np.sum(residual**2) + l1 * np.abs(w).sum()
        gap = duality_gap(q, w, l1, l2)
        assert_allclose(gap, primal - dual, rtol=1e-10)
        assert dual <= best + 1e-9 and gap >= primal - best - 1e-9
    path = linear.elastic_net_path(x, y, l1_ratio, [alpha])
    w = path.coef[0]
    primal = 0.5 * np.mean((y - x @ w) ** 2) + l1 * np.abs(w).sum() + 0.5 * l2 * (w @ w)
    assert_allclose(primal, best, rtol=1e-8)
    assert path.gaps[0] <= 1e-12 * primal


@pytest.mark.parametrize("l1_ratio", [0.1, 0.5, 0.99, 1.0])
@pytest.mark.parametrize(("n", "p"), [(200, 30), (40, 80)])
def test_elastic_net_agrees_with_sklearn(n, p, l1_ratio):
    models = pytest.importorskip("sklearn.linear_model")
    x, y = data(n, p)
    path = linear.elastic_net_path(x, y, l1_ratio, n_alphas=12)
    assert path.converged.all() and (path.gaps <= 1e-5 * path.gap_target).all()
    assert_array_equal(path.coef[0], 0.0)
    for k in (1, 6, 11):
        model = models.ElasticNet(
            path.alphas[k], l1_ratio=l1_ratio, fit_intercept=False, tol=1e-14, max_iter=500_000
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its tolerance is below rounding on purpose
            model.fit(x, y)
        scale = np.abs(model.coef_).max()
        assert_allclose(path.coef[k], model.coef_, rtol=0, atol=1e-8 * scale)


def test_elastic_net_starts_at_alpha_max_in_the_infinity_norm():
    x, y = data(60, 10)
    path = linear.elastic_net_path(x, y, 0.4, n_alphas=3, min_ratio=0.01)
    assert_allclose(path.alpha_max, np.abs(x.T @ y).max() / (0.4 * 60), rtol=1e-14)
    assert_allclose(path.alphas, path.alpha_max * np.array([1, 0.1, 0.01]), rtol=1e-12)
    just = linear.elastic_net_path(x, y, 0.4, path.alpha_max * np.array([0.999, 1.001]))
    assert np.count_nonzero(just.coef[0]) == 1 and np.count_nonzero(just.coef[1]) == 0


def test_elastic_net_order_scale_and_intercept():
    x, y = data(60, 10, offset=5.0)
    alphas = np.array([0.02, 0.3, 0.1])
    path = linear.elastic_net_path(x, y, 0.7, alphas, fit_intercept=True, scale=True)
    centred, spread = x - x.mean(axis=0), x.std(axis=0)
    plain = linear.elastic_net_path(centred / spread, y - y.mean(), 0.7, alphas[::-1])
    assert_allclose(path.coef * spread, plain.coef[::-1], rtol=1e-9, atol=1e-12)
    assert_allclose(path.intercepts, y.mean() - path.coef @ x.mean(axis=0), rtol=1e-12)


def test_elastic_net_condition_of_many_columns():
    x, y = data(700, 520)
    path = linear.elastic_net_path(x, y, 0.5, n_alphas=1)
    assert_allclose(path.condition, np.linalg.cond(x), rtol=1e-6)
    assert path.rank == 520


def test_elastic_net_of_dependent_columns_and_the_unreachable_gap():
    x, y = data(60, 10)
    both = np.concatenate([x, x[:, :3]], axis=1)
    path = linear.elastic_net_path(both, y, 0.5, [0.01])
    assert path.condition == np.inf and path.rank == 10
    centred = linear.elastic_net_path(x, y, 0.5, [0.01], fit_intercept=True)
    assert_allclose(centred.condition, np.linalg.cond(x - x.mean(axis=0)), rtol=1e-6)
    wide = linear.elastic_net_path(x[:8], y[:8], 0.5, [0.01], fit_intercept=True)
    singular = np.linalg.svd(x[:8] - x[:8].mean(axis=0), compute_uv=False)
    assert wide.rank == 7
    assert_allclose(wide.condition, singular[0] / singular[6], rtol=1e-6)
    assert_allclose(path.coef[0, :3], path.coef[0, 10:], rtol=1e-8)
    lasso = linear.elastic_net_path(both, y, 1.0, [0.01])
    once = linear.elastic_net_path(x, y, 1.0, [0.01])
    merged = lasso.coef[0, :10] + np.pad(lasso.coef[0, 10:], (0, 7))
    assert_allclose(merged, once.coef[0], rtol=0, atol=1e-8)
    with pytest.raises(TrainingError, match="duality gap"):
        linear.elastic_net_path(both, y, 0.5, [0.01], tol=1e-300)
    path = linear.elastic_net_path(both, y, 0.5, [0.01], tol=1e-300, allow_unconverged=True)
    assert not path.converged.any() and np.isfinite(path.coef).all()


@pytest.mark.parametrize("n_folds", [2, 5])
def test_grouped_folds(n_folds):
    rng = np.random.default_rng(0)
    groups = rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 500)
    folds = linear.grouped_folds(groups, n_folds, seed=1)
    assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(500))
    largest = np.unique(groups, return_counts=True)[1].max()
    sizes = [len(test) for _, test in folds]
    assert max(sizes) - min(sizes) <= largest
    for train, test in folds:
        assert len(train) + len(test) == 500 and not set(groups[train]) & set(groups[test])
    again, other = (
        linear.grouped_folds(groups, n_folds, 1),
        linear.grouped_folds(groups, n_folds, 2),
    )
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(folds, again, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(folds, other, strict=True))


def test_rows_without_groups_make_balanced_random_folds():
    folds = linear.grouped_folds(np.arange(103), 4)
    assert sorted(len(test) for _, test in folds) == [25, 26, 26, 26]
    assert not np.array_equal(folds[0][1], np.arange(len(folds[0][1])))


def test_weighted_ridge_is_sklearn_ridge_with_weights_of_inverse_variance():
    """Rows of a noisy and of a quiet label: noise found, weights and residuals as by hand."""
    models = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(8)
    x = rng.normal(size=(400, 12))
    quiet = rng.random(400) < 0.5
    y = x @ rng.normal(size=12) + rng.normal(size=400) * np.where(quiet, 0.05, 2.0)
    path = linear.weighted_ridge(x, y, [3.0], np.where(quiet, "V", "I"))
    plain = linear.ridge_path(x, y, [3.0])
    square = plain.loo_residuals[0] ** 2
    sigma = np.where(quiet, np.sqrt(square[quiet].mean()), np.sqrt(square[~quiet].mean()))
    model = models.Ridge(alpha=3.0, fit_intercept=False).fit(x, y, square.mean() / sigma**2)
    assert_allclose(path.weights, model.coef_, rtol=1e-8)
    out = np.arange(400) != 7
    model.fit(x[out], y[out], (square.mean() / sigma**2)[out])
    assert_allclose(path.loo_residuals[0, 7], y[7] - model.predict(x[7:8])[0], rtol=1e-8)
    assert (
        np.abs(path.loo_residuals[0][quiet]).mean() < np.abs(plain.loo_residuals[0][quiet]).mean()
    )


def by_hand(x, y, alphas, noise, groups, scale):
    """Weighted ridge by refitting without each group, twice: for the noise, then for the fit."""

    def left_out_of(x, y, alpha):
        found = np.empty(len(y))
        for group in np.unique(groups):
            out = groups == group
            found[out] = y[out] - x[out] @ refit(x[~out], y[~out], alpha)[0]
        return found

    def chosen(x, y):
        size = np.sqrt((x**2).mean(0)) if scale else np.ones(x.shape[1])
        errors = [left_out_of(x / size, y, alpha) for alpha in alphas]
        best = int(np.argmin([np.mean(e**2) for e in errors]))
        return refit(x / size, y, alphas[best])[0] / size, errors, best

    _, errors, best = chosen(x, y)
    square = errors[best] ** 2
    sigma = np.array([np.sqrt(square[noise == k].mean()) for k in noise])
    weight = np.sqrt(square.mean()) / sigma
    weights, errors, best = chosen(x * weight[:, None], y * weight)
    return weights, np.array(errors) / weight, best


def noisy(seed):
    """Columns of unlike size, rows of unlike noise, groups of four."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(60, 5)) * 10.0 ** np.arange(5)
    noise = random.integers(0, 2, 60)
    return x, x @ 10.0 ** -np.arange(5) + random.normal(size=60) * (0.1 + 3 * noise), noise


@pytest.mark.parametrize("scale", [False, True])
def test_weighted_ridge_with_groups_and_scale_is_refitting_by_hand(scale):
    x, y, noise = noisy(3)
    groups = np.arange(60) // 4
    path = linear.weighted_ridge(x, y, ALPHAS, noise, groups, scale=scale)
    weights, errors, best = by_hand(x, y, ALPHAS, noise, groups, scale)
    assert path.best == best
    assert_allclose(path.weights, weights, rtol=1e-7)
    assert_allclose(path.loo_residuals, errors, rtol=1e-6, atol=1e-9)
    assert_allclose(path.loo_mae, np.abs(errors).mean(1), rtol=1e-6)


@pytest.mark.parametrize("scale", [False, True])
def test_cross_predictions_with_noise_are_those_of_the_weighted_fit(scale):
    x, y, noise = noisy(4)
    groups = np.arange(60) // 4
    folds = linear.grouped_folds(groups, 3)
    found = linear.cross_predict(x, y, ALPHAS, folds, groups, noise=noise, scale=scale)
    for train, test in folds:
        weights, _, _ = by_hand(x[train], y[train], ALPHAS, noise[train], groups[train], scale)
        assert_allclose(found.predictions[test], x[test] @ weights, rtol=1e-6, atol=1e-9)
    plain = linear.cross_predict(x, y, ALPHAS, folds, groups, scale=scale)
    for k, (train, test) in enumerate(folds):
        size = np.sqrt((x[train] ** 2).mean(0)) if scale else np.ones(5)
        weights = refit(x[train] / size, y[train], plain.alphas[k])[0] / size
        assert_allclose(plain.predictions[test], x[test] @ weights, rtol=1e-7, atol=1e-9)


def test_scaled_evidence_is_the_evidence_of_scaled_columns():
    x, y = data(80, 4)
    units = np.array([1e3, 1.0, 1e-4, 7.0])
    size = np.sqrt((x**2).mean(0))
    scaled = linear.evidence(x * units, y, scale=True)
    plain = linear.evidence(x / size, y)
    assert_allclose(scaled.weights * units * size, plain.weights, rtol=1e-8)
    deviation = linear.predictive_std(plain, x[:5] / size)
    assert_allclose(linear.predictive_std(scaled, x[:5] * units), deviation, rtol=1e-8)


def test_a_constant_column_has_no_weight_beside_an_intercept():
    x, y = data(50, 3)
    x = np.column_stack([x, np.full(50, 0.1)])
    for found in (
        linear.ridge_path(x, y, [1e-3], fit_intercept=True, scale=True),
        linear.evidence(x, y, fit_intercept=True, scale=True),
    ):
        assert found.weights[3] == 0.0 and found.rank == 3
    moved = np.array([[0.0, 0.0, 0.0, 0.2]])
    assert linear.predictive_std(found, moved) < 1.0


def test_weighted_ridge_of_one_label_is_plain_ridge():
    """Equal noise changes nothing, nor does an exact fit."""
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(50, 4)), rng.normal(size=50)
    labels = np.zeros(50)
    weighted, plain = linear.weighted_ridge(x, y, [0.1], labels), linear.ridge_path(x, y, [0.1])
    assert_allclose(weighted.weights, plain.weights, rtol=1e-10)
    zero = linear.weighted_ridge(x, np.zeros(50), [0.1], labels)
    assert np.array_equal(zero.weights, np.zeros(4))


def test_cross_predict_never_sees_the_test_fold():
    x, y = data(60, 5)
    groups = np.arange(60) // 4
    folds = linear.grouped_folds(groups, 3)
    result = linear.cross_predict(x, y, ALPHAS, folds, groups)
    for k, (train, test) in enumerate(folds):
        scores = [np.mean(left_out(x[train], y[train], a, groups[train]) ** 2) for a in ALPHAS]
        assert result.alphas[k] == ALPHAS[int(np.argmin(scores))]
        w, _ = refit(x[train], y[train], result.alphas[k])
        assert_allclose(result.predictions[test], x[test] @ w, rtol=1e-8, atol=1e-10)
        changed = y.copy()
        changed[test] += 100.0
        again = linear.cross_predict(x, changed, ALPHAS, folds, groups)
        assert_array_equal(again.predictions[test], result.predictions[test])


def test_learning_curve_is_nested_and_ends_at_the_full_fold():
    x, y = data(120, 5)
    groups = np.arange(120) // 3
    folds = linear.grouped_folds(groups, 4)
    curve = linear.learning_curve(x, y, ALPHAS, folds, [0.1, 0.5, 1.0], groups)
    full = linear.cross_predict(x, y, ALPHAS, folds, groups)
    for k, (train, test) in enumerate(folds):
        error = full.predictions[test] - y[test]
        assert_allclose(curve.mae[-1, k], np.abs(error).mean(), rtol=1e-10)
        assert_allclose(curve.rmse[-1, k], np.sqrt(np.mean(error**2)), rtol=1e-10)
        assert curve.sizes[-1, k] == len(train)
    assert_array_equal(curve.sizes[:2] // 3 * 3, curve.sizes[:2])  # whole groups
    assert (np.diff(curve.sizes, axis=0) > 0).all()
    assert (curve.sizes[1] >= 45).all() and (curve.sizes[1] < 48).all()


X, Y = data(20, 3)
NAN = np.where(np.arange(60).reshape(20, 3) == 31, np.nan, X)


@pytest.mark.parametrize(
    "fit",
    [
        linear.evidence,
        lambda x, y: linear.ridge_path(x, y, [1.0]),
        lambda x, y: linear.elastic_net_path(x, y, 0.5),
    ],
)
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (NAN, Y, r"X: entry \(10, 1\) is not finite"),
        (X, np.where(np.arange(20) == 4, np.inf, Y), r"y: entry \(4,\) is not finite"),
        (X[:0], Y[:0], "non-empty"),
        (X[:, :0], Y, "non-empty"),
        (X, Y[:-1], "X has 20 rows and y 19"),
        (X[:, 0], Y, "has shape"),
        (X, Y[:, None], "has shape"),
        (X.astype(str).astype(object) + "x", Y, "not an array of real numbers"),
        (X * 1j, Y, "not an array of real numbers"),
        (X * 1e200, Y, "too large to square"),
    ],
)
def test_bad_data_gives_one_line(fit, x, y, message):
    with pytest.raises(DataError, match=message) as caught:
        fit(x, y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: linear.ridge_path(X, Y, [1.0, -1.0]), ConfigError, "hold -1"),
        (lambda: linear.ridge_path(X, Y, [np.nan]), ConfigError, "hold nan"),
        (lambda: linear.ridge_path(X, Y, []), ConfigError, "non-empty"),
        (lambda: linear.ridge_path(X, Y, ["a"]), ConfigError, "not numbers"),
        (lambda: linear.ridge_path(X[:1], Y[:1], [1.0]), DataError, "one row"),
        (lambda: linear.ridge_path(X[:2], Y[:2], [0.0]), DataError, "rank 2 of 3"),
        (lambda: linear.ridge_path(X[:, [0, 0]], Y, [1.0, 0.0]), DataError, "rank 1 of 2"),
        (lambda: linear.ridge_path(X, Y, [1.0], np.zeros(20)), DataError, "one group"),
        (lambda: linear.ridge_path(X, Y, [1.0], np.arange(19)), DataError, "one per row"),
        (lambda: linear.ridge_path(X, Y, [1.0], NAN[:, 1]), DataError, "not finite"),
        (lambda: linear.ridge_path(X, Y, [1.0], [None, *"a" * 19]), DataError, "be sorted"),
        (lambda: linear.cross_predict(X, Y[:9], [1.0], []), DataError, "20 rows and y 9"),
        (lambda: linear.evidence(X, Y, max_iter=1), TrainingError, "not converged"),
        (lambda: linear.evidence(X, Y, tol=0.0), ConfigError, "positive"),
        (lambda: linear.evidence(X, Y, hyper=(1, 1, 1, -1)), ConfigError, "hyper"),
        (lambda: linear.elastic_net_path(X, Y, 0.0), ConfigError, "ridge_path"),
        (lambda: linear.elastic_net_path(X, Y, 1.5), ConfigError, "l1_ratio"),
        (lambda: linear.elastic_net_path(X, Y, 0.5, [0.0]), ConfigError, "hold 0"),
        (lambda: linear.elastic_net_path(X, Y, 0.5, [-1.0]), ConfigError, "hold -1"),
        (lambda: linear.elastic_net_path(X, Y, 0.5, n_alphas=0), ConfigError, "n_alphas"),
        (lambda: linear.elastic_net_path(X, 0 * Y, 0.5), DataError, "orthogonal"),
        (lambda: linear.grouped_folds(np.arange(9), 1), ConfigError, "at least 2"),
        (lambda: linear.grouped_folds([1, 1, 2], 3), DataError, "2 groups for 3 folds"),
        (lambda: linear.grouped_folds(["a", "a"], 2), DataError, "one group"),
        (lambda: linear.cross_predict(X, Y, [1.0], []), ConfigError, "folds"),
        (
            lambda: linear.cross_predict(X, Y, [1.0], [(np.arange(20), np.arange(20))]),
            ConfigError,
            "train on rows",
        ),
        (
            lambda: linear.learning_curve(X, Y, [1.0], linear.grouped_folds(range(20), 2), [0]),
            ConfigError,
            "fractions",
        ),
        (
            lambda: linear.cross_predict(
                X, Y, [1.0], linear.grouped_folds(range(20), 2), noise=np.zeros(40)
            ),
            DataError,
            "not \\(20,\\)",
        ),
        (
            lambda: linear.evidence(X, 0 * Y, hyper=(0, 0, 0, 0)),
            TrainingError,
            "hyper-parameters above 0",
        ),
        (lambda: linear.predict(linear.ridge_path(X, Y, [1.0]), X[:, :2]), DataError, "2 columns"),
        (lambda: linear.predictive_std(linear.evidence(X, Y), NAN), DataError, "not finite"),
    ],
)
def test_bad_use_gives_one_line(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_constant_and_perfect_targets_stay_finite():
    zero = linear.evidence(X, 0 * Y)
    assert_array_equal(zero.weights, 0.0)
    assert np.isfinite([zero.noise_precision, zero.weight_precision, zero.log_evidence]).all()
    exact = linear.evidence(X, X @ np.arange(3.0))
    assert_allclose(exact.weights, np.arange(3.0), atol=1e-5)
    assert np.isfinite(linear.predictive_std(exact, X)).all()
