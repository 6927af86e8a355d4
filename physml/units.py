"""Constants and unit conversions, one table; the value of each stands with its source.

Source of all: CODATA 2022 (Mohr et al., 2024); "exact" means defined by the SI of 2019.
"""

from __future__ import annotations

EV_J = 1.602176634e-19  # J per eV, exact
BOLTZMANN_EV_PER_K = 8.617333262145179e-05  # eV/K, exact: 1.380649e-23 / 1.602176634e-19
HBAR_EV_S = 6.582119569509067e-16  # eV s, exact: 6.62607015e-34 / (2 pi) / 1.602176634e-19
AMU_KG = 1.66053906892e-27  # kg, unified atomic mass unit, +- 0.00000000052e-27
ANGSTROM_M = 1e-10  # m per Å, exact
