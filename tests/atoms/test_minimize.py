"""Relaxed minima against published entropies, and kicks off saddles."""

import numpy as np
import pytest

from physml.atoms import formation_entropy, relax
from physml.atoms.defects import NAMED, bcc, dumbbells, vacancies
from physml.atoms.potentials import evaluate
from physml.atoms.vibrations import largest_force
from physml.errors import ConfigError, TrainingError


@pytest.mark.parametrize(
    ("name", "entropy", "energy"),
    [
        ("V4 tetrahedron", 7.88892, 5.7636),
        ("I2 parallel 110 dumbbells", 1.76294, 6.2439),
    ],
)
def test_published_entropies(iron, name, entropy, energy):
    """Formation entropies at 1000 K published with Phys. Rev. Materials 4, 063802 (2020)."""
    crystal = bcc(8)
    atoms = relax(NAMED[name](crystal), iron)
    assert largest_force(atoms, iron) < 1e-8
    assert formation_entropy(atoms, crystal, iron, 1000.0) == pytest.approx(entropy, abs=1e-3)
    cost = evaluate(atoms, iron)[0].sum() - len(atoms) / 1024 * evaluate(crystal, iron)[0].sum()
    assert cost == pytest.approx(energy, abs=1e-3)


def test_a_saddle_is_left(iron):
    """A 111 dumbbell relaxes by symmetry to a saddle; the kick leads to the 110 dumbbell."""
    energies = []
    for direction in [(1, 1, 1), (1, 1, 0)]:
        atoms = relax(dumbbells(bcc(5), [(0, 0, 0)], [direction]), iron)
        energies.append(evaluate(atoms, iron)[0].sum())
    assert energies[0] == pytest.approx(energies[1], abs=1e-9)


def test_the_start_is_not_changed_and_the_end_is_reproducible(iron):
    """Pure: same start and seed, same bits."""
    start = dumbbells(bcc(4), [(0, 0, 0)], [(1, 1, 1)])
    kept = start.positions.copy()
    first, second = relax(start, iron, seed=5), relax(start, iron, seed=5)
    assert (start.positions == kept).all()
    assert (first.positions == second.positions).all()


def test_relaxing_a_minimum_moves_nothing(iron):
    """Idempotent to the accuracy of the forces."""
    atoms = relax(vacancies(bcc(4), [(0, 0, 0)]), iron)
    again = relax(atoms, iron)
    assert np.abs(again.positions - atoms.positions).max() < 1e-8


def test_a_gas_is_no_minimum(iron):
    """Atoms out of reach of each other have no stiffness: named, not returned."""
    with pytest.raises(TrainingError, match="no minimum"):
        relax(bcc(2, a0=12.0), iron)


@pytest.mark.parametrize("fmax", [0.0, -1.0, np.nan])
def test_bad_fmax(iron, fmax):
    """A force limit is positive."""
    with pytest.raises(ConfigError, match="fmax"):
        relax(bcc(4), iron, fmax=fmax)
