"""Logistic regression against scikit-learn, its gradient, and a closed form."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from physml.errors import ConfigError, DataError
from physml.linear import logistic, probabilities


def sample(n=400, p=6, k=4, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, p)) * 10.0 ** np.arange(p) + 3.0  # columns of unlike size
    centres = random.normal(size=(k, p))
    chance = np.exp((x - 3.0) / 10.0 ** np.arange(p) @ centres.T)
    labels = (random.random(n)[:, None] > np.cumsum(chance / chance.sum(1)[:, None], 1)).sum(1)
    return x, labels


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("alpha", [0.1, 10.0])
def test_against_scikit_learn(k, alpha):
    x, y = sample(k=k, p=3)
    x /= x.std(0)
    ours = logistic(x, y, alpha)
    # With two classes scikit-learn has one vector of weights, the difference of our two: its
    # penalty on the difference is ours at half the strength.
    c = 1 / alpha if k > 2 else 2 / alpha
    theirs = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, y)
    assert_allclose(probabilities(ours, x), theirs.predict_proba(x), atol=1e-6)
    assert ours.iterations < 15


def test_the_gradient_vanishes_and_the_gauge_is_fixed():
    x, y = sample()
    model = logistic(x, y, 0.5)
    residual = probabilities(model, x) - np.eye(4)[y]
    gradient = x.T @ residual + 0.5 * model.weights
    assert_allclose(gradient / np.abs(x).sum(0)[:, None], 0.0, atol=1e-9)
    assert_allclose(residual.sum(0), 0.0, atol=1e-7)
    assert_allclose(model.weights.sum(1) * x.std(0), 0.0, atol=1e-9)


def test_scaled_columns_have_no_unit():
    x, y = sample()
    units = 10.0 ** np.array([3, 0, -2, 1, -4, 2])
    one, two = logistic(x, y, scale=True), logistic(x * units, y, scale=True)
    assert_allclose(probabilities(one, x), probabilities(two, x * units), atol=1e-8)


def test_without_information_the_probabilities_are_the_shares():
    y = np.repeat([0, 1, 2], [10, 30, 60])
    model = logistic(np.ones((100, 2)), y)
    assert_allclose(probabilities(model, [[1.0, 1.0]]), [[0.1, 0.3, 0.6]], atol=1e-9)


def test_separable_classes_stay_finite():
    x = np.linspace(-1, 1, 50)[:, None] * 1e3
    model = logistic(x, (x[:, 0] > 0).astype(int), 1e-6)
    chance = probabilities(model, x)
    assert np.isfinite(model.weights).all() and chance[0, 0] > 0.999 and chance[-1, 1] > 0.999


@pytest.mark.parametrize(
    "x, y, alpha, error, message",
    [
        ([[np.nan]] * 4, [0, 1, 0, 1], 1.0, DataError, "X"),
        ([[1.0]] * 4, [0, 1, 0], 1.0, DataError, "3 rows"),
        ([[1.0]] * 4, [0, 2, 0, 2], 1.0, DataError, r"class \[1\]"),
        ([[1.0]] * 4, [0, 0, 0, 0], 1.0, DataError, "all but one"),
        ([[1.0]] * 4, [0, -1, 0, 1], 1.0, DataError, "label -1"),
        ([[1.0]] * 4, [0.0, 1.0, 0.0, 1.0], 1.0, DataError, "integer"),
        ([[1.0]] * 4, [0, 1, 0, 1], 0.0, ConfigError, "alpha: is 0"),
        ([[1.0]] * 4, [0, 1, 0, 1], np.nan, ConfigError, "alpha: is nan"),
    ],
)
def test_bad_input_is_refused(x, y, alpha, error, message):
    with pytest.raises(error, match=message):
        logistic(x, np.array(y), alpha)


def test_columns_of_another_fit_are_refused():
    x, y = sample()
    with pytest.raises(DataError, match="has 5 columns, the model 6"):
        probabilities(logistic(x, y), x[:, :5])
