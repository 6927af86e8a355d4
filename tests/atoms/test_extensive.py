"""Sums of non-linear per-atom functions: whiteness, extensivity, and the kernels they stand for."""

import numpy as np
import pytest

from physml.atoms import afs, extensive
from physml.atoms.defects import bcc
from physml.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def per_atom():
    atoms = bcc(4)
    atoms.rattle(0.1, seed=3)
    return afs(atoms)


@pytest.fixture(scope="module")
def whitening(per_atom):
    return extensive.whiten(per_atom)


def test_whitened_components_are_uncorrelated(per_atom, whitening):
    """Mean 0, covariance 1, and the leading component carries the most variance."""
    z = (per_atom - whitening.mean) @ whitening.components
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-7)
    np.testing.assert_allclose(z.T @ z / len(z), np.eye(z.shape[1]), atol=1e-5)
    variance = 1.0 / np.square(whitening.components).sum(axis=0)
    assert (np.diff(variance) <= 1e-12 * variance[0]).all()


def test_sums_against_plain_loops(per_atom, whitening):
    """Products and cosines, written out atom by atom with NumPy's own cosine."""
    z = (per_atom - whitening.mean) @ whitening.components
    products = extensive.product_sums(per_atom, whitening, 5)
    expected = [z[:, a] @ z[:, b] for a in range(5) for b in range(a, 5)]
    np.testing.assert_allclose(products[: z.shape[1]], z.sum(axis=0), atol=1e-9)
    np.testing.assert_allclose(products[z.shape[1] :], expected, atol=1e-9)
    waves = extensive.cosines(6, 300, 0.7, seed=1)
    expected = np.cos(z[:, :6] @ waves.frequencies + waves.phases).sum(axis=0)
    np.testing.assert_allclose(
        extensive.cosine_sums(per_atom, whitening, waves), expected, atol=1e-11
    )


def test_cosines_approximate_a_gaussian_kernel():
    """Rahimi and Recht: the mean of cos cos approaches exp(-scale^2 d^2 / 2) / 2."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(2, 3))
    identity = extensive.Whitening(np.zeros(3), np.eye(3))
    waves = extensive.cosines(3, 200_000, 0.8, seed=4)
    x, y = (extensive.cosine_sums(row[None], identity, waves) for row in rows)
    kernel = 0.5 * np.exp(-0.5 * 0.8**2 * np.sum((rows[0] - rows[1]) ** 2))
    assert np.mean(x * y) == pytest.approx(kernel, abs=5e-3)


def test_two_copies_give_exactly_twice(per_atom, whitening):
    """Extensivity, also when the padding of the two sizes differs."""
    waves = extensive.cosines(16, 50, 0.1, seed=0)
    twice = np.concatenate([per_atom, per_atom])
    for function in (
        lambda rows: extensive.product_sums(rows, whitening, 10),
        lambda rows: extensive.cosine_sums(rows, whitening, waves),
    ):
        np.testing.assert_allclose(function(twice), 2 * function(per_atom), rtol=1e-10, atol=1e-9)


def test_dependent_columns_are_left_out():
    """A column written twice adds no component."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(100, 4))
    assert extensive.whiten(np.column_stack([rows, rows[:, 0]])).components.shape == (5, 4)


def test_refusals(per_atom, whitening):
    """One line for each misuse."""
    with pytest.raises(DataError, match="fewer than two rows"):
        extensive.whiten(per_atom[:1])
    with pytest.raises(DataError, match="not finite"):
        extensive.whiten(np.full((5, 3), np.nan))
    with pytest.raises(ConfigError, match="rise above rounding"):
        extensive.product_sums(per_atom, whitening, 99)
    for arguments in ((0, 5, 0.1), (5, 0, 0.1), (5, 5, 0.0)):
        with pytest.raises(ConfigError, match="give a positive number"):
            extensive.cosines(*arguments, seed=0)
