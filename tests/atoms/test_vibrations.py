"""Hessian, log-determinant and entropies against autodiff, ASE, eigenvalues and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.vibrations import Vibrations
from scipy import constants, linalg

from physml.atoms import (
    formation_entropy,
    hessian,
    relax,
    vibrational_entropy,
    vibrational_free_energy,
)
from physml.atoms.defects import bcc, dumbbells, vacancies
from physml.atoms.potentials import energy_and_forces, read_eam, system
from physml.atoms.vibrations import factorise, frequencies, log_determinant
from physml.errors import ConfigError, DataError

KELVIN = constants.k / constants.hbar  # rad/s per K


@pytest.fixture(scope="module")
def vacancy():
    from physml.atoms.potentials import ackland_mendelev_2004

    return relax(vacancies(bcc(4), [(0, 0, 0)]), ackland_mendelev_2004())


def autodiff_columns(atoms, potential, columns):
    with jax.enable_x64(True):
        padded = system(atoms, potential)
        forces = lambda x: energy_and_forces(potential, x, padded.species, padded.neighbors)[1]
        x = jnp.asarray(padded.positions)
        found = []
        for column in columns:
            tangent = np.zeros(x.size)
            tangent[column] = 1.0
            found.append(-np.asarray(jax.jvp(forces, (x,), (tangent.reshape(x.shape),))[1]))
    return np.array(found)[:, : len(atoms)].reshape(len(columns), -1)


def test_hessian_columns_against_autodiff(iron, rattled):
    """Iron, far from rest: 1e-11 eV/Å^2."""
    matrix = hessian(rattled, iron)
    columns = [0, 7, 200]
    assert np.abs(matrix[columns] - autodiff_columns(rattled, iron, columns)).max() < 1e-11


def test_hessian_of_two_species_against_autodiff(two_species):
    """Asymmetric densities: the two directions of a pair differ."""
    potential = read_eam(two_species)
    atoms = bcc(4, a0=3.0)
    atoms.rattle(0.1, seed=2)
    atoms.symbols[::3] = "Cr"
    matrix = hessian(atoms, potential)
    columns = [0, 4, 77]
    assert np.abs(matrix[columns] - autodiff_columns(atoms, potential, columns)).max() < 1e-11


def test_hessian_of_a_small_cell(iron):
    """Images of one atom count as neighbours: the uniform shift still costs nothing."""
    atoms = bcc(2)
    atoms.rattle(0.05, seed=4)
    matrix = hessian(atoms, iron)
    columns = [1, 11]
    assert np.abs(matrix[columns] - autodiff_columns(atoms, iron, columns)).max() < 1e-11


def test_hessian_against_ase_finite_differences(iron, vacancy, tmp_path):
    """ASE moves two atoms and differences the forces: 1e-5 relative."""
    atoms = vacancy.copy()
    atoms.calc = iron.calculator()
    moved = [1, 60]
    vibrations = Vibrations(atoms, indices=moved, name=str(tmp_path / "vib"), delta=1e-4, nfree=4)
    vibrations.run()
    theirs = vibrations.get_vibrations().get_hessian_2d()
    rows = [3 * i + x for i in moved for x in range(3)]
    ours = hessian(vacancy, iron)[np.ix_(rows, rows)]
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(ours).max()


def test_hessian_is_symmetric_and_blind_to_translation(iron, rattled):
    """Newton's third law and translation invariance."""
    matrix = hessian(rattled, iron)
    assert np.abs(matrix - matrix.T).max() < 1e-12
    assert np.abs(matrix.reshape(-1, len(rattled), 3).sum(axis=1)).max() < 1e-11


def test_log_determinant_against_eigenvalues(iron, vacancy):
    """Exact treatment of the translations: 1e-8 in a sum of 378 logarithms."""
    masses = np.full(len(vacancy), iron.masses[0])
    values = linalg.eigvalsh(hessian(vacancy, iron) / iron.masses[0])
    expected = np.log(values[3:]).sum()
    assert np.abs(values[:3]).max() < 1e-12
    assert abs(log_determinant(factorise(hessian(vacancy, iron), masses)) - expected) < 1e-8


def test_log_determinant_of_unequal_masses():
    """The translations of a mass-weighted Hessian are not uniform."""
    rng = np.random.default_rng(0)
    masses = rng.uniform(1.0, 60.0, 20)
    half = rng.normal(size=(60, 60))
    half -= np.repeat(half.reshape(60, 20, 3).mean(axis=1)[:, None], 20, axis=1).reshape(60, 60)
    matrix = half.T @ half  # translations of all atoms cost nothing
    root = np.repeat(np.sqrt(masses), 3)
    values = linalg.eigvalsh(matrix / np.outer(root, root))
    factor = factorise(matrix.copy(), masses)
    assert log_determinant(factor) == pytest.approx(np.log(values[3:]).sum(), abs=1e-8)


def test_frequencies_of_bulk_iron(iron):
    """The highest phonon of iron lies near 9 THz (Brockhouse et al. 1967: 8.5-9.3 THz at 300 K)."""
    thz = frequencies(bcc(4), iron) / (2 * np.pi * 1e12)
    assert thz.size == 3 * 128 - 3
    assert 8.0 < thz.max() < 10.5
    assert thz.min() > 1.0


def test_entropies_against_textbook_sums(iron, vacancy):
    """Classical and quantum S and F equal sums over oscillators with scipy's constants."""
    x = frequencies(vacancy, iron) / (KELVIN * 300.0)
    kt = constants.k * 300.0 / constants.e
    expected = {
        (vibrational_entropy, False): np.sum(1 - np.log(x)),
        (vibrational_entropy, True): np.sum(x / (np.exp(x) - 1) - np.log(1 - np.exp(-x))),
        (vibrational_free_energy, False): kt * np.sum(np.log(x)),
        (vibrational_free_energy, True): kt * np.sum(x / 2 + np.log(1 - np.exp(-x))),
    }
    for (function, quantum), value in expected.items():
        assert function(vacancy, iron, 300.0, quantum) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("quantum", [False, True])
def test_entropy_is_minus_the_slope_of_the_free_energy(iron, vacancy, quantum):
    """S = -dF/dT, an identity that neither formula was written from."""
    step = 0.5
    free = [vibrational_free_energy(vacancy, iron, 400 + s, quantum) for s in (-step, step)]
    slope = -(free[1] - free[0]) / (2 * step) * constants.e / constants.k
    assert vibrational_entropy(vacancy, iron, 400.0, quantum) == pytest.approx(slope, rel=1e-6)


def test_quantum_becomes_classical_when_hot(iron, vacancy):
    """The difference falls as 1/T^2."""
    difference = [
        vibrational_entropy(vacancy, iron, t, True) - vibrational_entropy(vacancy, iron, t)
        for t in (2000.0, 4000.0)
    ]
    assert difference[0] / difference[1] == pytest.approx(4.0, rel=0.01)


def test_formation_entropy_vanishes_for_the_perfect_crystal(iron):
    """Bulk against bulk."""
    assert formation_entropy(bcc(4), bcc(4), iron, 1000.0) == pytest.approx(0.0, abs=1e-10)


def test_formation_entropy_of_a_vacancy_in_its_closed_form(iron, vacancy):
    """-1/2 logdet' H_d + N_d/(2 N_b) logdet' H_b + 3 (N_d-N_b)/N_b [1 + ln(kT/hbar w0)]."""
    bulk = bcc(4)
    log_det = [np.log(linalg.eigvalsh(hessian(a, iron))[3:]).sum() for a in (vacancy, bulk)]
    unit = np.sqrt(constants.e * 1e20 / (iron.masses[0] * constants.atomic_mass))
    bracket = 1 + np.log(1000.0 * KELVIN / unit)
    assert bracket == pytest.approx(3.2986, abs=1e-4)
    expected = -0.5 * log_det[0] + 0.5 * 127 / 128 * log_det[1] - 3 / 128 * bracket
    assert formation_entropy(vacancy, bulk, iron, 1000.0) == pytest.approx(expected, abs=1e-8)


def test_a_quantum_formation_entropy_is_quantum_in_both_terms(iron, vacancy):
    bulk, cold = bcc(4), 100.0
    terms = [vibrational_entropy(a, iron, cold, quantum=True) for a in (vacancy, bulk)]
    found = formation_entropy(vacancy, bulk, iron, cold, quantum=True)
    assert found == pytest.approx(terms[0] - 127 / 128 * terms[1], abs=1e-9)


def test_a_bulk_in_another_cell_is_refused(iron, vacancy):
    """The sizes would differ by the logarithm of the longest waves, far above any defect."""
    for bulk in (bcc(5), bcc(4, a0=2.9)):
        with pytest.raises(DataError, match="another cell"):
            formation_entropy(vacancy, bulk, iron, 1000.0)
    with pytest.raises(DataError, match="one atom"):
        vibrational_entropy(Atoms("Fe", cell=np.eye(3) * 9, pbc=True), iron, 1000.0)


def test_unrelaxed_and_saddle_structures_are_refused(iron):
    """Forces that are not zero, and a crowdion that symmetry holds on a saddle."""
    with pytest.raises(DataError, match="not at rest"):
        vibrational_entropy(bcc(4)[1:], iron, 1000.0)
    with pytest.raises(DataError, match="is a saddle"):
        vibrational_entropy(bcc(4, a0=3.6), iron, 1000.0)


@pytest.mark.parametrize("temperature", [0.0, -5.0, np.nan, np.inf])
def test_bad_temperature(iron, vacancy, temperature):
    """Kelvin are positive."""
    with pytest.raises(ConfigError, match="temperature"):
        vibrational_entropy(vacancy, iron, temperature)


def test_two_coupled_atoms_oscillate_as_on_paper(iron):
    """Two atoms per periodic cell: optical modes of the bcc zone centre by hand from H."""
    atoms = bcc(1)
    matrix = hessian(atoms, iron)
    stiffness = -matrix[0, 3]  # each atom against the other sublattice
    expected = np.sqrt(2 * stiffness / iron.masses[0] * constants.e * 1e20 / constants.atomic_mass)
    np.testing.assert_allclose(frequencies(atoms, iron), expected, rtol=1e-10)


def test_dumbbell_needs_no_help(iron):
    """An interstitial relaxes to a minimum with a soft mode and a finite entropy."""
    atoms = relax(dumbbells(bcc(4), [(0, 0, 0)], [(1, 1, 0)]), iron)
    assert isinstance(atoms, Atoms)
    assert 0.0 < formation_entropy(atoms, bcc(4), iron, 1000.0) < 10.0
