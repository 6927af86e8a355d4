"""From the hadronic system to particles that leave the nucleus.

A simplified event maker, not a simulation of NOvA. Events have up to `MOST` hadrons, code 0 marks
an empty place; four-vectors are (x, y, z, E), GeV.

| constant                     | value           | source                                         |
|------------------------------|-----------------|------------------------------------------------|
| charged multiplicity a, b    | `MULTIPLICITY`  | Yang et al. (AGKY), arXiv 0904.4043, as set in |
| width c of Levy's function   | `LEVY`          | GENIE 2, UserPhysicsOptions.xml                |
| pi+ pi- : pi0 pi0 pairs      | 2 : 1           | as above, without kaons                        |
| all : charged hadrons        | 1.5             | as above                                       |
| pion absorbed, exchanged     | 0.2, 0.1        | one effective number for carbon, our choice    |
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from physml.neutrino import cross_sections as xs
from physml.neutrino.kinematics import boost, isotropic

MOST = 12
MULTIPLICITY = np.array([[[0.40, 1.42], [-0.20, 1.42]], [[0.02, 1.28], [0.80, 0.95]]])
LEVY = np.array([[7.93, 5.22], [5.22, 7.93]])
"""[neutrino, antineutrino][proton, neutron]."""
ABSORBED, EXCHANGED = 0.2, 0.1
MASSES = {0: 0.0, 2212: xs.PROTON, 2112: xs.NEUTRON, 211: xs.PION, -211: xs.PION, 111: xs.PION0}
CODES = np.array(sorted(MASSES))
MASS = np.array([MASSES[int(code)] for code in CODES])


def hadron_mass(code: Int[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """Mass of nucleons and pions, GeV; 0 for code 0."""
    return np.asarray(MASS[np.searchsorted(CODES, code)])


def resonance_decay(
    generator: np.random.Generator, charge: Int[np.ndarray, "n"]
) -> Int64[np.ndarray, "n 2"]:
    """Nucleon and pion of a Delta of charge 2 to -1, by isospin (Clebsch-Gordan).

    p pi+ and n pi- always; the Delta+ goes to p pi0 : n pi+ as 2 : 1, the Delta0 likewise.
    """
    neutral = generator.random(len(charge)) < 2 / 3
    alike = (charge == 2) | ((charge == 1) & neutral) | ((charge == 0) & ~neutral)
    nucleon = np.where(alike, 2212, 2112)
    return np.stack([nucleon, _pion(charge - alike)], axis=1)


def _pion(charge: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(charge == 0, 111, 211 * charge))


def hadronise(
    generator: np.random.Generator, w: Float64[np.ndarray, "n"], charge: Int[np.ndarray, "n"],
    anti: Bool[np.ndarray, "n"], proton: Bool[np.ndarray, "n"],
) -> Int64[np.ndarray, "n most"]:  # fmt: skip
    """Codes of the hadrons of a system of mass w and charge: a nucleon and pions.

    Their number scales (Koba, Nielsen and Olesen) about 1.5 (a + b ln w²), cut to what w allows.
    """
    a, b = np.moveaxis(MULTIPLICITY[anti.astype(int), 1 - proton], -1, 0)
    c = LEVY[anti.astype(int), 1 - proton]
    mean = 1.5 * (a + b * np.log(w**2))
    # Levy's function of z = n / <n> is that of a Poisson number c z of mean c.
    count = np.rint(np.maximum(mean, 2.0) * generator.poisson(c) / c)
    room = 1 + (w - xs.NEUTRON - 1e-3) // xs.PION
    count = np.clip(count, 2, np.minimum(room, MOST)).astype(np.int64)
    nucleon = (generator.random(len(w)) < 2 / 3).astype(np.int64)  # charge; protons 2 of 3
    # One pion carries one charge at most: let the nucleon take the rest.
    nucleon = np.where(np.abs(charge - nucleon) > count - 1, np.where(charge > 0, 1, 0), nucleon)
    extra = charge - nucleon
    place = np.arange(MOST - 1)
    single = place < np.abs(extra)[:, None]
    spare = count - 1 - np.abs(extra)
    after = place - np.abs(extra)[:, None]
    paired = (after >= 0) & (after < 2 * (spare // 2)[:, None])
    pair = np.clip(after // 2, 0, None)
    chosen = generator.random((len(w), MOST // 2)) < 2 / 3
    charged = np.take_along_axis(chosen, np.minimum(pair, MOST // 2 - 1), axis=1)
    pions = np.where(paired & charged, np.where(after % 2 == 0, 211, -211), 111)
    pions = np.where(single, 211 * np.sign(extra)[:, None], pions)
    pions = np.where(place < (count - 1)[:, None], pions, 0)
    return np.concatenate([np.where(nucleon == 1, 2212, 2112)[:, None], pions], axis=1)


def decay(
    generator: np.random.Generator, system: Float64[np.ndarray, "n 4"],
    code: Int[np.ndarray, "n most"],
) -> Float64[np.ndarray, "n most 4"]:  # fmt: skip
    """Four-vectors of hadrons that share out a system: isotropic, four-momentum conserved.

    RAMBO (Kleiss, Stirling and Ellis, CPC 40 (1986) 359) without its weights, which for few
    massive particles differ from event to event; two bodies are exact.
    """
    mass, real = hadron_mass(code), code != 0
    w = np.sqrt(system[:, 3] ** 2 - (system[:, :3] ** 2).sum(axis=1))
    energy = real * generator.gamma(2.0, size=code.shape)
    free = np.concatenate([energy[..., None] * isotropic(generator, *code.shape),
                           energy[..., None]], axis=-1)  # fmt: skip
    total = free.sum(axis=1)
    total[:, :3] *= -1
    rest = boost(free, np.broadcast_to(total[:, None], free.shape))
    scale = _shrink((rest[..., :3] ** 2).sum(axis=-1), mass, w)
    momentum = rest[..., :3] * scale[:, None, None]
    energy = np.sqrt(mass**2 + (momentum**2).sum(axis=-1))
    found = np.concatenate([momentum, energy[..., None]], axis=-1)
    found = boost(found, np.broadcast_to(system[:, None], found.shape))
    return np.asarray(found * real[..., None])


def _shrink(square: np.ndarray, mass: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Factor on momenta that makes the energies sum up to w, by Newton's method."""
    scale = w / np.sqrt(square).sum(axis=1)
    for _ in range(8):  # the sum is convex in the factor: from above it converges from above
        energy = np.sqrt(mass**2 + square * scale[:, None] ** 2)
        slope = (square * scale[:, None] / np.maximum(energy, 1e-12)).sum(axis=1)
        scale = scale - (energy.sum(axis=1) - w) / slope
    return np.asarray(scale)


def rescatter(
    generator: np.random.Generator, code: Int[np.ndarray, "p"],
    momentum: Float64[np.ndarray, "p 4"], bound: Bool[np.ndarray, "p"],
) -> tuple[Int64[np.ndarray, "p 2"], Float64[np.ndarray, "p 2 4"]]:  # fmt: skip
    """What particles turn into on their way out of the nucleus: one or two each (code 0: none).

    Pions are absorbed by a proton and a neutron (two nucleons come out) or exchange charge with a
    nucleon (pion and nucleon), each at rest and bound by 25 MeV; four-momentum and charge are
    conserved with those nucleons. A slow pion that lacks the energy stays what it is.
    """
    pion = bound & (np.abs(code) < 1000)
    at = generator.random(len(code))
    absorbed = pion & (at < ABSORBED)
    proton = np.where(code == 111, generator.random(len(code)) < 0.5, code == -211)
    swapped = np.where(code == 111, np.where(proton, 211, -211), 111)
    out = np.stack([code, np.zeros_like(code)], axis=1).astype(np.int64)
    first = np.where(code == -211, 2112, 2212)
    second = np.where(code == 211, 2212, 2112)
    helper = np.where(absorbed, xs.PROTON + xs.NEUTRON - 2 * xs.BINDING,
                      np.where(proton, xs.PROTON, xs.NEUTRON) - xs.BINDING)  # fmt: skip
    exchanged = pion & ~absorbed & (at < ABSORBED + EXCHANGED)
    system = momentum.copy()
    system[:, 3] += helper
    kick = np.stack([swapped, np.where(proton, 2112, 2212)], axis=1)
    need = hadron_mass(kick).sum(axis=1)
    enough = system[:, 3] ** 2 - (system[:, :3] ** 2).sum(axis=1) > need**2
    exchanged &= enough
    out[absorbed] = np.stack([first, second], axis=1)[absorbed]
    out[exchanged] = kick[exchanged]
    found = np.zeros((len(code), 2, 4))
    found[:, 0] = momentum
    changed = absorbed | exchanged
    if changed.any():
        found[changed] = decay(generator, system[changed], out[changed])
    return out, found
