"""Total cross sections and (W, Q²) of each mode from tables, and two-body kinematics.

A simplified event maker, not a simulation of NOvA. The tables are made of the differential cross
sections on nucleons at rest; a cell is drawn by its integral, a place in it uniformly.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from physml.errors import DataError
from physml.neutrino import cross_sections as xs

FREE, PROTONS, NEUTRONS = 0.108, 0.441, 0.451
"""Shares of the nucleons: hydrogen, protons and neutrons in nuclei.

From 65 % CH2 and 35 % of PVC (C2H3Cl) with 15 % TiO2 by mass: hydrogen is
0.65 * 2/14 + 0.2975 * 3/62.5, protons follow from Z/A of each part. Public code quotes 10.8 %
hydrogen and 66.7 % carbon for NOvA.
"""
CARBON = 0.671  # share of the mass that is carbon
ENERGY_MIN, ENERGY_MAX = 0.3, 20.0  # GeV
N_ENERGY, N_W, N_Q2 = 40, 32, 32
Q2_POWER = 3  # places in Q² go as v^3, for most of the cross section is at small Q²
TARGETS = (2212, 2212, 2112)  # free proton, proton and neutron in a nucleus
LEPTONS = (12, 14, 16, 0)  # charged currents of each flavour; neutral current


class Tables(NamedTuple):
    """Row r = (sign * 3 + target) * 4 + lepton, see `species`; m the modes QE, RES, DIS."""

    energy: Float64[np.ndarray, "rows k"]  # GeV, rising; starts at the threshold of the row
    cross_section: Float64[np.ndarray, "rows k 3"]  # cm² per nucleon of that kind
    cumulative: Float64[np.ndarray, "3 rows k cells"]  # rising to 1 over the cells (W, Q²)


def species(
    pdg: Int[np.ndarray, "n"], charged: Bool[np.ndarray, "n"], target: Int[np.ndarray, "n"]
) -> Int[np.ndarray, "n"]:
    """Row in `Tables` of a neutrino and a place in `TARGETS`."""
    lepton = np.where(charged, (np.abs(pdg) - 12) // 2, 3)
    return np.asarray(((pdg < 0) * 3 + target) * 4 + lepton)


def threshold(mass: float) -> float:
    """Energy of a neutrino, GeV, that can just make a lepton of this mass on a nucleon at rest."""
    return mass + mass**2 / (2 * xs.NUCLEON)


@cache
def tables() -> Tables:
    """Made once, in about a second."""
    rows = [
        _row(sign, place, lepton) for sign in (1, -1) for place in range(3) for lepton in LEPTONS
    ]
    energy, sigma, cells = (np.stack(part) for part in zip(*rows, strict=True))
    return Tables(energy, sigma, np.moveaxis(cells, 1, 0))


def _row(sign: int, place: int, lepton: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    charged, pdg, target = lepton > 0, sign * (lepton or 14), TARGETS[place]
    mass = float(xs.lepton_mass(np.array(pdg), charged))
    first = max(ENERGY_MIN, 1.01 * threshold(mass))
    energy = np.geomspace(first, ENERGY_MAX, N_ENERGY)
    u, v = (np.arange(N_W) + 0.5) / N_W, (np.arange(N_Q2) + 0.5) / N_Q2
    cells, sigma = np.zeros((3, N_ENERGY, N_W * N_Q2)), np.zeros((N_ENERGY, 3))
    for mode in range(3):
        low, high = w_limits(energy, mass, mode)
        w = low[:, None, None] + (high - low)[:, None, None] * u[:, None]
        q2_low, q2_high = xs.q2_limits(energy[:, None, None], w, mass)
        q2 = q2_low + (q2_high - q2_low) * v**Q2_POWER
        at = energy[:, None, None]
        if mode == 0:
            density = xs.qe_differential(at, q2, pdg, target, charged)
            density = density * (xs.pauli(q2) if place else 1.0)
        else:
            model = xs.resonance_differential if mode == 1 else xs.dis_differential
            density = model(at, w, q2, pdg, target, charged) * (high - low)[:, None, None]
        each = density * Q2_POWER * v ** (Q2_POWER - 1) * (q2_high - q2_low) / (N_W * N_Q2)
        total = each.sum(axis=(1, 2))
        sigma[:, mode] = total
        flat = np.cumsum(each.reshape(N_ENERGY, -1), axis=1)
        cells[mode] = flat / np.where(total > 0, total, 1.0)[:, None]
    return energy, sigma, cells


def w_limits(
    energy: Float64[np.ndarray, "n"], mass: Float64[np.ndarray, "n"] | float,
    mode: Int[np.ndarray, "n"] | int,
) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:  # fmt: skip
    """Smallest and largest mass of the hadrons of QE, RES and DIS; equal where energy lacks."""
    bottom = np.array([xs.NUCLEON, xs.NEUTRON + xs.PION, xs.W_JOIN])[mode]
    top = np.array([xs.NUCLEON, xs.W_JOIN, np.inf])[mode]
    most = np.sqrt(xs.NUCLEON**2 + 2 * xs.NUCLEON * energy) - mass
    low = np.broadcast_to(bottom, most.shape)
    return low, np.maximum(low, np.minimum(top, most))


def total_cross_section(
    energy: Float64[np.ndarray, "n"], pdg: Int[np.ndarray, "n"], charged: Bool[np.ndarray, "n"]
) -> Float64[np.ndarray, "n 3 4"]:
    """cm² per nucleon of the detector, on each of `TARGETS`, in each of `events.MODES`.

    "Other" is coherent pion production on carbon, written to the protons in nuclei; none of nutau.

    Raises:
        DataError: an energy outside 0.3 to 20 GeV.
    """
    energy = np.asarray(energy, float)
    if not ((energy >= ENERGY_MIN) & (energy <= ENERGY_MAX)).all():
        what = f"lies outside {ENERGY_MIN} to {ENERGY_MAX} GeV"
        raise DataError("neutrino energy", what, "drop such events")
    found = np.zeros((*energy.shape, 3, 4))
    table = tables()
    for place, share in enumerate((FREE, PROTONS, NEUTRONS)):
        row = species(pdg, charged, np.full(energy.shape, place))
        node, part = _node(table, row, energy)
        below, above = table.cross_section[row, node], table.cross_section[row, node + 1]
        open_ = (energy >= table.energy[row, 0])[..., None]
        found[:, place, :3] = share * open_ * (below + part[..., None] * (above - below))
    for lepton in (12, 14):  # the mass of the tau leaves next to no coherent events
        mine = charged & (np.abs(pdg) == lepton)
        sigma = xs.coherent_cross_section(energy[mine], lepton)
        found[mine, 1, 3] = sigma * CARBON / 12
    sigma = xs.coherent_cross_section(energy[~charged], 14, charged=False)
    found[~charged, 1, 3] = sigma * CARBON / 12
    return found


def _node(table: Tables, row: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Node below an energy, and how far it is to the next, 0 to 1; nodes are geometric."""
    first = table.energy[row, 0]
    step = np.log(ENERGY_MAX / first) / (N_ENERGY - 1)
    place = np.maximum(np.log(energy / first) / step, 0.0)
    node = np.minimum(place.astype(np.int64), N_ENERGY - 2)
    return node, place - node


def draw_w_q2(
    generator: np.random.Generator, energy: Float64[np.ndarray, "n"],
    pdg: Int[np.ndarray, "n"], charged: Bool[np.ndarray, "n"], target: Int[np.ndarray, "n"],
    mode: Int[np.ndarray, "n"],
) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:  # fmt: skip
    """W and Q² of QE, RES and DIS events, after their differential cross sections."""
    table = tables()
    row = species(pdg, charged, target)
    node, part = _node(table, row, energy)
    node = node + (generator.random(len(energy)) < part)
    # Below the threshold of a mode at the lower node: take the upper one.
    node = np.where(table.cumulative[mode, row, node, -1] > 0, node, node + 1)
    flat = (mode * len(table.energy) + row) * N_ENERGY + node
    cell = _search(table.cumulative.reshape(-1, N_W * N_Q2), flat, generator.random(len(energy)))
    u = (cell // N_Q2 + generator.random(len(energy))) / N_W
    v = (cell % N_Q2 + generator.random(len(energy))) / N_Q2
    mass = xs.lepton_mass(pdg, charged)
    low, high = w_limits(energy, mass, mode)
    w = low + (high - low) * u
    q2_low, q2_high = xs.q2_limits(energy, w, mass)
    code = np.array(TARGETS)[target]
    other = np.where(code == 2112, 2212, 2112)  # a charged current changes the nucleon
    w = np.where(mode == 0, xs.nucleon_mass(np.where(charged, other, code)), w)
    return w, q2_low + (q2_high - q2_low) * v**Q2_POWER


def _search(cumulative: np.ndarray, row: np.ndarray, at: np.ndarray) -> np.ndarray:
    """First cell of a row whose cumulative value exceeds `at`, by bisection."""
    low, high = np.zeros(len(row), np.int64), np.full(len(row), cumulative.shape[1] - 1)
    for _ in range(int(cumulative.shape[1] - 1).bit_length()):
        middle = (low + high) // 2
        above = cumulative[row, middle] > at
        low, high = np.where(above, low, middle + 1), np.where(above, middle, high)
    return np.asarray(np.minimum(low, cumulative.shape[1] - 1))


def boost(
    vectors: Float64[np.ndarray, "*n 4"], frame: Float64[np.ndarray, "*n 4"]
) -> Float64[np.ndarray, "*n 4"]:
    """Four-vectors (x, y, z, E) given in the rest frame of `frame`, seen where that one moves."""
    mass = np.sqrt(_square(frame))[..., None]
    momentum, energy = frame[..., :3], frame[..., 3:]
    along = (vectors[..., :3] * momentum).sum(axis=-1, keepdims=True)
    moved = vectors[..., :3] + momentum * (along / (energy + mass) + vectors[..., 3:]) / mass
    return np.concatenate([moved, (energy * vectors[..., 3:] + along) / mass], axis=-1)


def _square(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector[..., 3] ** 2 - (vector[..., :3] ** 2).sum(axis=-1))


def isotropic(generator: np.random.Generator, *shape: int) -> Float64[np.ndarray, "*n 3"]:
    """Unit vectors of uniform direction."""
    cosine, angle = generator.uniform(-1, 1, shape), generator.uniform(0, 2 * np.pi, shape)
    sine = np.sqrt(1 - cosine**2)
    return np.stack([sine * np.cos(angle), sine * np.sin(angle), cosine], axis=-1)


def turned(
    generator: np.random.Generator, axis: Float64[np.ndarray, "n 3"],
    cosine: Float64[np.ndarray, "n"],
) -> Float64[np.ndarray, "n 3"]:  # fmt: skip
    """Unit vectors at an angle to `axis` (unit), uniform around it."""
    helper = np.where(np.abs(axis[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    first = np.cross(axis, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(axis, first)
    angle = generator.uniform(0, 2 * np.pi, len(axis))[:, None]
    sine = np.sqrt(np.maximum(1 - cosine**2, 0.0))[:, None]
    round_ = np.cos(angle) * first + np.sin(angle) * second
    return np.asarray(cosine[:, None] * axis + sine * round_)


def scatter(
    generator: np.random.Generator, neutrino: Float64[np.ndarray, "n 4"],
    nucleon: Float64[np.ndarray, "n 4"], mass: Float64[np.ndarray, "n"],
    w: Float64[np.ndarray, "n"], q2: Float64[np.ndarray, "n"],
) -> tuple[
    Float64[np.ndarray, "n 4"], Float64[np.ndarray, "n 4"], Bool[np.ndarray, "n"]
]:  # fmt: skip
    """Lepton of a given mass and hadrons of mass w with momentum transfer q2: four-vectors.

    Conserves four-momentum. The third value is False where no angle gives that Q² (the vectors
    there mean nothing): a nucleon in motion may lack the energy.
    """
    total = neutrino + nucleon
    s = _square(total)
    root = np.sqrt(np.maximum(s, 1e-9))
    incoming = (neutrino[:, 3] * total[:, 3] - (neutrino[:, :3] * total[:, :3]).sum(axis=1)) / root
    energy = (s + mass**2 - w**2) / (2 * root)
    momentum = np.sqrt(np.maximum(energy**2 - mass**2, 1e-18))
    cosine = (2 * incoming * energy - mass**2 - q2) / (2 * incoming * momentum)
    possible = (root > w + mass) & (np.abs(cosine) <= 1)
    back = np.concatenate([-total[:, :3], total[:, 3:]], axis=1)
    axis = boost(neutrino, back)[:, :3]
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    direction = turned(generator, axis, np.clip(cosine, -1, 1))
    lepton = np.concatenate([momentum[:, None] * direction, energy[:, None]], axis=1)
    lepton = boost(lepton, total)
    return lepton, total - lepton, possible
