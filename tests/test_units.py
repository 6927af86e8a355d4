"""The table of constants against the CODATA tables that SciPy carries."""

import pytest
import scipy.constants

from physml import units


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (units.EV_J, scipy.constants.eV),
        (units.BOLTZMANN_EV_PER_K, scipy.constants.k / scipy.constants.eV),
        (units.HBAR_EV_S, scipy.constants.hbar / scipy.constants.eV),
        (units.AMU_KG, scipy.constants.atomic_mass),
        (units.ANGSTROM_M, scipy.constants.angstrom),
    ],
)
def test_constants_are_those_of_codata(ours, theirs):
    # 1e-9: CODATA 2018 and 2022 differ in the atomic mass unit by 3.1e-10.
    assert ours == pytest.approx(theirs, rel=1e-9)
