"""Cross sections of neutrinos on nucleons: quasi-elastic, Delta, deep inelastic, coherent.

A simplified event maker, not a simulation of NOvA. Energies GeV, Q² GeV², cross sections cm².
Arguments broadcast; `pdg` is 12, 14 or 16 (negative: antineutrino), `target` 2212 or 2112.

| constant                  | value         | source                                              |
|---------------------------|---------------|-----------------------------------------------------|
| masses, lifetimes, Delta  | below         | PDG 2024, as in the package `particle`              |
| Fermi constant, (hbar c)² | below         | PDG 2024                                            |
| axial mass, QE and Delta  | 0.99, 1.12    | defaults of GENIE 2 (UserPhysicsOptions.xml)        |
| vector mass²              | 0.71          | dipole fit; 0.84² in GENIE 2                        |
| Fermi momentum, binding   | 0.221, 0.025  | Moniz et al., PRL 26 (1971) 445, carbon             |
| Bodek-Yang A, B, Cv1, Cv2 | below         | hep-ex/0308007, values of GENIE 2, those of u quark |
| coherent pi0 on carbon    | 14.0e-40 cm²  | NOvA, arXiv 1902.00558, at 2.7 GeV                  |
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int
from numpy.typing import ArrayLike

from physml.errors import DataError

ELECTRON, MUON, TAU = 0.51099895e-3, 0.1056583755, 1.77693
PROTON, NEUTRON, NUCLEON = 0.93827209, 0.93956542, 0.93891875
PION, PION0, DELTA, DELTA_WIDTH = 0.13957039, 0.1349768, 1.232, 0.117
FERMI, HBARC2 = 1.1663788e-5, 3.893793721e-28  # GeV^-2; cm² GeV²
VUD2, WEINBERG = 0.97367**2, 0.23122  # |V_ud|²; sin² of the mixing angle
AXIAL, AXIAL_MASS, AXIAL_MASS_DELTA, VECTOR_MASS2 = 1.2754, 0.99, 1.12, 0.71
MOMENTS = (2.7928473, -1.9130427)  # magnetic, of proton and neutron, nuclear magnetons
FERMI_MOMENTUM, BINDING = 0.221, 0.025
W_JOIN = 1.4  # GeV: below it the Delta, above it deep inelastic scattering
COHERENT, COHERENT_ENERGY = 14.0e-40, 2.7
COHERENT_POWER = 0.7  # rise with energy; our choice, after the trend of Rein-Sehgal (1983)

UP, DOWN, SEA = 0.2205, 0.1103, 0.0462
"""Momentum of valence u and d in the proton, and of each of u, d, ubar, dbar in its sea.

Fixed, with u : d = 2 : 1, by the slopes sigma/E = 0.677 and 0.334 (1e-38 cm²/GeV) of neutrinos and
antineutrinos on isoscalar targets (PDG review of neutrino cross sections), which the sum of all
modes below meets at 50 GeV. At 5 GeV the sum is lower by 6 %.
"""


def lepton_mass(
    pdg: Int[np.ndarray, "*n"], charged: bool | np.ndarray
) -> Float64[np.ndarray, "*n"]:
    """Mass of the outgoing lepton, GeV: zero for neutral currents.

    Raises:
        DataError: a code is not that of a neutrino.
    """
    kind = np.abs(pdg)
    if not np.isin(kind, (12, 14, 16)).all():
        raise DataError("neutrino", "is none of ±12, ±14, ±16", "give PDG codes of neutrinos")
    mass = np.where(kind == 12, ELECTRON, np.where(kind == 14, MUON, TAU))
    return np.asarray(np.where(charged, mass, 0.0))


def nucleon_mass(code: Int[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """Mass of protons (2212) and neutrons, GeV."""
    return np.asarray(np.where(code == 2212, PROTON, NEUTRON))


def q2_limits(
    energy: ArrayLike, w: ArrayLike, mass: ArrayLike
) -> tuple[Float64[np.ndarray, "*n"], Float64[np.ndarray, "*n"]]:
    """Smallest and largest Q² on a nucleon at rest that becomes a system of mass w.

    From both angles 0 and pi in the centre of mass. Both are equal where energy lacks.
    """
    s = NUCLEON**2 + 2 * NUCLEON * np.asarray(energy, float)
    root = np.sqrt(s)
    neutrino = (s - NUCLEON**2) / (2 * root)
    lepton = (s + np.square(mass) - np.square(w)) / (2 * root)
    momentum = np.sqrt(np.maximum(np.square(lepton) - np.square(mass), 0.0))
    momentum = np.where(root > np.asarray(w) + mass, momentum, 0.0)
    middle = 2 * neutrino * lepton - np.square(mass)
    return middle - 2 * neutrino * momentum, middle + 2 * neutrino * momentum


def pauli(q2: ArrayLike) -> Float64[np.ndarray, "*n"]:
    """Share of quasi-elastic events in a Fermi gas that leave the nucleon above the Fermi sea.

    Overlap of two spheres of radius pF a distance |q| apart, |q|² = Q² + (Q²/2M)².
    """
    x = np.sqrt(np.asarray(q2) + np.square(np.asarray(q2) / (2 * NUCLEON))) / FERMI_MOMENTUM
    return np.where(x < 2, 0.75 * x - x**3 / 16, 1.0)


def _elastic_factors(
    q2: np.ndarray, target: np.ndarray, charged: bool | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F1, F2, F_A: isovector for charged currents, those of the Z for neutral ones."""
    t = q2 / (4 * NUCLEON**2)
    dipole = (1 + q2 / VECTOR_MASS2) ** -2
    dirac_p = dipole * (1 + t * MOMENTS[0]) / (1 + t)
    dirac_n = dipole * t * MOMENTS[1] / (1 + t)
    pauli_p = dipole * (MOMENTS[0] - 1) / (1 + t)
    pauli_n = dipole * MOMENTS[1] / (1 + t)
    half = np.where(target == 2212, 0.5, -0.5)  # third component of isospin
    p = np.where(charged, 1.0, half - 2 * WEINBERG * (half > 0))
    n = np.where(charged, -1.0, -half - 2 * WEINBERG * (half < 0))
    axial = np.where(charged, 1.0, half) * AXIAL * (1 + q2 / AXIAL_MASS**2) ** -2
    return p * dirac_p + n * dirac_n, p * pauli_p + n * pauli_n, axial


def qe_differential(
    energy: ArrayLike, q2: ArrayLike, pdg: ArrayLike, target: ArrayLike, charged: bool = True
) -> Float64[np.ndarray, "*n"]:
    """Quasi-elastic dsigma/dQ² on a free nucleon at rest, cm²/GeV², zero outside the limits.

    Llewellyn Smith, Phys. Rept. 3 (1972) 261, eq. 3.18 with dipole form factors and F_A > 0; the
    neutral current as the same with the form factors of the Z (no strange quarks).
    """
    energy, q2, pdg, target = np.broadcast_arrays(energy, q2, pdg, target)
    mass = lepton_mass(pdg, charged)
    low, high = q2_limits(energy, NUCLEON, mass)
    m2 = NUCLEON**2
    t = q2 / (4 * m2)
    f1, f2, fa = _elastic_factors(q2, target, charged)
    fp = 2 * m2 * fa / (PION**2 + q2)
    helicity = (f1 + f2) ** 2 + (fa + 2 * fp) ** 2 - 4 * (1 + t) * fp**2
    a = (1 + t) * fa**2 - (1 - t) * f1**2 + t * (1 - t) * f2**2 + 4 * t * f1 * f2
    a = (mass**2 + q2) / m2 * (a - mass**2 / (4 * m2) * helicity)
    b = q2 / m2 * fa * (f1 + f2)
    c = (fa**2 + f1**2 + t * f2**2) / 4
    x = (4 * NUCLEON * energy - q2 - mass**2) / m2
    front = FERMI**2 * m2 * HBARC2 / (8 * np.pi * np.square(energy)) * (VUD2 if charged else 1.0)
    allowed = (q2 >= low) & (q2 <= high) & (high > low)
    if charged:  # a neutrino raises the charge of the nucleon
        allowed &= (pdg > 0) == (target == 2112)
    return np.where(allowed, front * (a + np.sign(pdg) * b * x + c * x**2), 0.0)


def qe_cross_section(
    energy: ArrayLike, pdg: int, target: int | None = None, *, charged: bool = True,
    bound: bool = False,
) -> Float64[np.ndarray, "*n"]:  # fmt: skip
    """Quasi-elastic cross section per nucleon that can take part, cm².

    Args:
        energy: of the neutrino, GeV.
        pdg: of the neutrino.
        target: 2212 or 2112; by default the one that a charged current acts on.
        charged: charged or neutral current.
        bound: in a nucleus: Pauli-blocked, see `pauli`.
    """
    energy = np.asarray(energy, float)
    target = target or (2112 if pdg > 0 else 2212)
    low, high = q2_limits(energy, NUCLEON, lepton_mass(np.array(pdg), charged))
    nodes, weights = np.polynomial.legendre.leggauss(96)
    # Q² is squeezed towards zero, where form factors make the cross section large.
    v = (nodes + 1) / 2
    q2 = low[..., None] + (high - low)[..., None] * v**3
    density = qe_differential(energy[..., None], q2, pdg, target, charged)
    density = density * (pauli(q2) if bound else 1.0)
    return np.asarray((density * 1.5 * v**2 * weights).sum(axis=-1) * (high - low))


def delta_shape(w: ArrayLike) -> Float64[np.ndarray, "*n"]:
    """Breit-Wigner of the Delta(1232) with p-wave width, 1/GeV; its integral to 2 GeV is one."""
    w = np.asarray(w, float)
    width = DELTA_WIDTH * (_pion_momentum(w) / _pion_momentum(np.array(DELTA))) ** 3
    shape = width / (2 * np.pi) / ((w - DELTA) ** 2 + width**2 / 4)
    return np.asarray(shape / 0.87267)  # integral from threshold to 2 GeV


def _pion_momentum(w: np.ndarray) -> np.ndarray:
    up, down = w**2 - (NUCLEON + PION) ** 2, w**2 - (NUCLEON - PION) ** 2
    return np.asarray(np.sqrt(np.maximum(up * down, 0.0)) / (2 * w))


def resonance_differential(
    energy: ArrayLike, w: ArrayLike, q2: ArrayLike, pdg: ArrayLike, target: ArrayLike,
    charged: bool = True,
) -> Float64[np.ndarray, "*n"]:  # fmt: skip
    """d²sigma/dW dQ² of the Delta(1232) on a free nucleon, cm²/GeV³, zero outside the limits.

    Rein and Sehgal, Ann. Phys. 133 (1981) 79: helicity amplitudes of the P33(1232) in the quark
    model of Feynman, Kislinger and Ravndal (Z = 0.762, as GENIE 2), lepton mass in the limits
    only. Charged currents on p (nu) and n (nubar) lead to I_3 = ±3/2, three times as often.
    """
    energy, w, q2, pdg, target = np.broadcast_arrays(energy, w, q2, pdg, target)
    mass = lepton_mass(pdg, charged)
    low, high = q2_limits(energy, w, mass)
    nu = (w**2 - NUCLEON**2 + q2) / (2 * NUCLEON)
    q = np.sqrt(nu**2 + q2)
    plus, minus = (2 * energy - nu + q) / (2 * energy), (2 * energy - nu - q) / (2 * energy)
    d = (w + NUCLEON) ** 2 + q2
    common = np.sqrt(1 + q2 / (4 * NUCLEON**2))
    vector = common * (1 + q2 / VECTOR_MASS2) ** -2 * (1.0 if charged else 1 - 2 * WEINBERG)
    axial = 0.762 * common * (1 + q2 / AXIAL_MASS_DELTA**2) ** -2
    rv = np.sqrt(2) * NUCLEON * q / w * (w + NUCLEON) / d * vector
    ra = np.sqrt(2) / 6 * (w + NUCLEON) / w * axial
    scalar = axial * (w**2 - NUCLEON**2) / (6 * q * NUCLEON)
    left, right = 8 * (rv + ra) ** 2, 8 * (rv - ra) ** 2  # |f_1|² + |f_3|²: (2 + 6) R²
    left, right = np.where(pdg > 0, left, right), np.where(pdg > 0, right, left)
    transverse = w / NUCLEON * (plus**2 * left + minus**2 * right)
    total = transverse + 2 * plus * minus * NUCLEON / w * q**2 / q2 * 16 * scalar**2
    front = FERMI**2 * HBARC2 / (8 * np.pi) * q2 / q**2 * w / NUCLEON
    three = 3.0 if charged else 1.0
    isospin = np.where((pdg > 0) == (target == 2212), three, 1.0)
    ckm = VUD2 if charged else 1.0
    allowed = (q2 >= low) & (q2 <= high) & (high > low) & (w < W_JOIN)
    return np.where(allowed, front * ckm * isospin * delta_shape(w) * total, 0.0)


def _partons(x: np.ndarray, q2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Momentum densities x u_v and x d_v of the proton, and x times each sea quark.

    Bodek and Yang: scaling variable xi and low-Q² factors K, here on the vector half only, for
    the axial current is not conserved (arXiv 2108.09240 treats both apart).
    """
    xi = np.minimum(x * (q2 + 0.305) / (q2 + 0.538 * x), 1.0)
    valence = (1 - (1 + q2 / VECTOR_MASS2) ** -4) * (q2 + 0.189) / (q2 + 0.291)
    # integrals over x of sqrt(x) (1-x)^3, sqrt(x) (1-x)^4, (1-x)^7: 32/315, 256/3465, 1/8
    up = UP * 315 / 32 * np.sqrt(xi) * (1 - xi) ** 3
    down = DOWN * 3465 / 256 * np.sqrt(xi) * (1 - xi) ** 4
    sea = SEA * 8 * (1 - xi) ** 7 * (1 + q2 / (q2 + 0.363)) / 2
    return up * (1 + valence) / 2, down * (1 + valence) / 2, sea


def dis_differential(
    energy: ArrayLike, w: ArrayLike, q2: ArrayLike, pdg: ArrayLike, target: ArrayLike,
    charged: bool = True,
) -> Float64[np.ndarray, "*n"]:  # fmt: skip
    """Deep inelastic d²sigma/dW dQ² on a free nucleon, cm²/GeV³, zero below W_JOIN.

    Leading order: 2 G² M E / pi (x q + x qbar (1 - y)²) for neutrinos on the quarks that they can
    turn, with left and right couplings for neutral currents; lepton mass in the limits only. The
    x shapes are simple powers, of our choice; their integrals are fixed by data, see `UP`.
    """
    energy, w, q2, pdg, target = np.broadcast_arrays(energy, w, q2, pdg, target)
    mass = lepton_mass(pdg, charged)
    low, high = q2_limits(energy, w, mass)
    nu = (w**2 - NUCLEON**2 + q2) / (2 * NUCLEON)
    x, y = q2 / (2 * NUCLEON * nu), nu / energy
    first, second, sea = _partons(x, q2)
    proton = target == 2212
    up, down = np.where(proton, first, second), np.where(proton, second, first)
    back = (1 - y) ** 2
    if charged:
        quarks = np.where(pdg > 0, down + sea, (up + sea) * back)
        both = quarks + np.where(pdg > 0, sea * back, sea)
    else:
        both = np.zeros_like(x)
        for quark, isospin, charge in ((up, 0.5, 2 / 3), (down, -0.5, -1 / 3)):
            left, right = (isospin - charge * WEINBERG) ** 2, (charge * WEINBERG) ** 2
            a, b = np.where(pdg > 0, left, right), np.where(pdg > 0, right, left)
            both = both + (quark + sea) * (a + b * back) + sea * (b + a * back)
    front = 2 * FERMI**2 * HBARC2 * NUCLEON * energy / np.pi
    jacobian = w / (2 * NUCLEON**2 * energy * nu)  # |d(x, y) / d(W, Q²)|
    allowed = (q2 >= low) & (q2 <= high) & (high > low) & (w >= W_JOIN) & (y <= 1)
    return np.where(allowed, front * jacobian * both, 0.0)


def coherent_cross_section(
    energy: ArrayLike, pdg: int, *, charged: bool = True
) -> Float64[np.ndarray, "*n"]:
    """Coherent pion production on a carbon nucleus, cm².

    The measured neutral current, times (E / 2.7 GeV)^0.7 and a threshold; twice that for charged
    currents (isospin). Equal for neutrinos and antineutrinos.
    """
    energy = np.asarray(energy, float)
    mass = lepton_mass(np.array(pdg), charged)
    room = np.maximum(1 - (mass + PION) / energy, 0.0) ** 2
    rise = (energy / COHERENT_ENERGY) ** COHERENT_POWER
    return np.asarray((2.0 if charged else 1.0) * COHERENT * rise * room)
