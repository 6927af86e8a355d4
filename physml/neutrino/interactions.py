"""Neutrino interactions in the detector: flavour, mode, kinematics and the visible particles.

A simplified event maker, not a simulation of NOvA. Quasi-elastic scattering, Delta, deep inelastic
and coherent pion production on a Fermi gas, for charged and neutral currents; pions are absorbed or
exchange charge in the nucleus. See `physml.neutrino.cross_sections`, `kinematics`, `hadrons`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from physml.errors import ConfigError, DataError
from physml.neutrino import cross_sections as xs
from physml.neutrino import flux, hadrons, kinematics
from physml.neutrino.events import Interactions, Particles

COHERENT = 3  # place of "other" in `events.MODES`
NUCLEUS_SLOPE = (1.0 * 12 ** (1 / 3) / 0.1973269804) ** 2 / 3
"""1/GeV²: coherent events fall as exp(-slope |t|), with a radius of 1 fm A^(1/3) (Rein-Sehgal)."""
ATTEMPTS = 400


class Vertices(NamedTuple):
    """n neutrinos and what they hit; four-vectors (x, y, z, E), GeV."""

    neutrino: Float64[np.ndarray, "n 4"]
    target: Int64[np.ndarray, "n"]  # place in `kinematics.TARGETS`
    nucleon: Float64[np.ndarray, "n 4"]  # struck; 0 for coherent events
    lepton: Float64[np.ndarray, "n 4"]
    hadrons: Float64[np.ndarray, "n 4"]  # sum; neutrino + nucleon = lepton + hadrons
    mode: Int64[np.ndarray, "n"]
    w: Float64[np.ndarray, "n"]
    q2: Float64[np.ndarray, "n"]


def interact(
    generator: np.random.Generator, n: int, box: tuple[tuple[float, float], ...], *,
    fractions: tuple[float, ...] = flux.FRACTIONS, exposure: float = flux.EXPOSURE,
) -> tuple[Interactions, Particles]:  # fmt: skip
    """Make n neutrino events of the beam, flux-swapped.

    Args:
        generator: source of randomness.
        n: events.
        box: lowest and highest x, y, z of the vertex, cm; uniform inside.
        fractions: shares of charged currents of numu, nue, nutau and of neutral currents.
        exposure: kt x protons on target, for the weights (see `flux.weights`).

    Returns:
        The interactions, and the visible particles: charged leptons (taus undecayed), nucleons and
        pions; no neutrinos.

    Raises:
        ConfigError: n is negative, or the box, fractions or exposure make no sense.
    """
    low, high = np.asarray(box, float).T
    if n < 0 or low.shape != (3,) or not (high >= low).all():
        raise ConfigError("interact", f"n = {n}, box = {box}", "give n >= 0 and (low, high) x 3")
    pdg, charged, energy = flux.draw(generator, n, fractions)
    vertices = collide(generator, pdg, charged, energy)
    code, momentum = final_state(generator, pdg, charged, vertices)
    vertex = generator.uniform(low, high, (n, 3))
    real = code != 0
    event = np.broadcast_to(np.arange(n, dtype=np.int32)[:, None], code.shape)[real]
    weight = flux.weights(pdg, charged, energy, max(n, 1), exposure=exposure, fractions=fractions)
    events = Interactions(
        pdg, charged, vertices.mode.astype(np.int8), energy, vertices.lepton[:, 3], vertices.q2,
        vertices.w, vertex, weight,
    )  # fmt: skip
    particles = Particles(event, code[real].astype(np.int32), vertex[event], momentum[real][:, :3])
    return events, particles


def collide(
    generator: np.random.Generator, pdg: Int[np.ndarray, "n"], charged: Bool[np.ndarray, "n"],
    energy: Float64[np.ndarray, "n"],
) -> Vertices:  # fmt: skip
    """What given neutrinos hit, how, and the lepton and hadronic system that come out.

    Target and mode go by cross section. W and Q² are drawn for a nucleon at rest; the nucleon then
    gets the motion of a Fermi gas and its binding energy, drawn again where that cannot be.
    """
    sigma = kinematics.total_cross_section(energy, pdg, charged).reshape(-1, 12)
    cumulative = np.cumsum(sigma, axis=1)
    at = generator.random(len(energy)) * cumulative[:, -1]
    kind = (cumulative <= at[:, None]).sum(axis=1)
    target, mode = kind // 4, kind % 4
    direction = np.array([0.0, np.sin(flux.BEAM_SLOPE), np.cos(flux.BEAM_SLOPE), 1.0])
    n = len(energy)
    empty = np.zeros((3, n, 4))
    found = Vertices(
        energy[:, None] * direction, target, empty[0], empty[1], empty[2], mode,
        np.zeros(n), np.zeros(n),
    )  # fmt: skip
    _incoherent(generator, found, pdg, charged)
    _coherent(generator, found, pdg, charged)
    return found


def _incoherent(
    generator: np.random.Generator, to: Vertices, pdg: np.ndarray, charged: np.ndarray
) -> None:
    """Fill the rows of QE, RES and DIS."""
    todo = np.flatnonzero(to.mode != COHERENT)
    for attempt in range(ATTEMPTS):
        if not len(todo):
            return
        at, target, mode = to.neutrino[todo], to.target[todo], to.mode[todo]
        if attempt % 8 == 0:
            to.w[todo], to.q2[todo] = kinematics.draw_w_q2(
                generator, at[:, 3], pdg[todo], charged[todo], target, mode
            )
        nucleon = _fermi_gas(generator, target)
        mass = xs.lepton_mass(pdg[todo], charged[todo])
        lepton, system, good = kinematics.scatter(
            generator, at, nucleon, mass, to.w[todo], to.q2[todo]
        )
        fast = (system[:, :3] ** 2).sum(axis=1) > xs.FERMI_MOMENTUM**2
        good &= (mode != 0) | (target == 0) | fast
        done = todo[good]
        to.nucleon[done], to.lepton[done] = nucleon[good], lepton[good]
        to.hadrons[done] = system[good]
        todo = todo[~good]
    what = f"{len(todo)} events found no kinematics, the first at {to.neutrino[todo[0], 3]} GeV"
    raise DataError("neutrino interactions", what, "report the seed")


def _fermi_gas(generator: np.random.Generator, target: np.ndarray) -> np.ndarray:
    """Four-vectors of nucleons: at rest in hydrogen, in a Fermi gas and bound elsewhere."""
    mass = xs.nucleon_mass(np.array(kinematics.TARGETS)[target])
    size = xs.FERMI_MOMENTUM * np.cbrt(generator.random(len(target))) * (target > 0)
    momentum = size[:, None] * kinematics.isotropic(generator, len(target))
    energy = np.sqrt(mass**2 + size**2) - xs.BINDING * (target > 0)
    return np.concatenate([momentum, energy[:, None]], axis=1)


def _coherent(
    generator: np.random.Generator, to: Vertices, pdg: np.ndarray, charged: np.ndarray
) -> None:
    """Fill the rows of coherent pion production, after Rein and Sehgal, NPB 223 (1983) 29.

    1 - y in the pion's share of the energy, a dipole of mass 1 GeV in Q², exp(-slope |t|); the
    nucleus takes the momentum that is left, but no energy.
    """
    todo = np.flatnonzero(to.mode == COHERENT)
    while len(todo):
        neutrino = to.neutrino[todo]
        energy, mass = neutrino[:, 3], xs.lepton_mass(pdg[todo], charged[todo])
        pion = np.where(charged[todo], xs.PION, xs.PION0)
        y0, y1 = pion / energy, 1 - mass / energy
        at = generator.random((3, len(todo)))
        y = 1 - np.sqrt((1 - y0) ** 2 + at[0] * ((1 - y1) ** 2 - (1 - y0) ** 2))
        nu = y * energy
        lepton = energy - nu
        momentum, speed = np.sqrt(lepton**2 - mass**2), np.sqrt(nu**2 - pion**2)
        q2_low, q2_high = (2 * energy * (lepton + s * momentum) - mass**2 for s in (-1, 1))
        first, last = 1 / (1 + q2_low), 1 / (1 + q2_high)
        q2 = 1 / (first + at[1] * (last - first)) - 1
        cosine = (2 * energy * lepton - mass**2 - q2) / (2 * energy * momentum)
        out = momentum[:, None] * kinematics.turned(
            generator, neutrino[:, :3] / energy[:, None], np.clip(cosine, -1, 1)
        )
        transfer = neutrino[:, :3] - out
        q = np.linalg.norm(transfer, axis=1)
        t_low, t_high = (q - speed) ** 2, (q + speed) ** 2
        t = -np.log1p(at[2] * np.expm1(-NUCLEUS_SLOPE * (t_high - t_low))) / NUCLEUS_SLOPE + t_low
        cosine = np.clip((q**2 + speed**2 - t) / (2 * q * speed), -1, 1)
        flight = speed[:, None] * kinematics.turned(generator, transfer / q[:, None], cosine)
        w2 = xs.NUCLEON**2 + 2 * xs.NUCLEON * nu - q2
        good = (generator.random(len(todo)) < np.exp(-NUCLEUS_SLOPE * t_low)) & (w2 > 0)
        done = todo[good]
        to.lepton[done] = np.concatenate([out, lepton[:, None]], axis=1)[good]
        to.hadrons[done] = np.concatenate([flight, nu[:, None]], axis=1)[good]
        to.q2[done], to.w[done] = q2[good], np.sqrt(w2[good])
        todo = todo[~good]


def final_state(
    generator: np.random.Generator, pdg: Int[np.ndarray, "n"], charged: Bool[np.ndarray, "n"],
    vertices: Vertices, *, nucleus: bool = True,
) -> tuple[Int64[np.ndarray, "n k"], Float64[np.ndarray, "n k 4"]]:  # fmt: skip
    """Codes and four-vectors of the visible particles of each event; code 0: an empty place.

    Args:
        generator: source of randomness.
        pdg: of the neutrinos.
        charged: charged or neutral currents.
        vertices: see `collide`.
        nucleus: let pions be absorbed or exchange charge on their way out.
    """
    n = len(pdg)
    sign = np.where(charged, np.sign(pdg), 0)
    proton = np.array(kinematics.TARGETS)[vertices.target] == 2212
    charge = proton + sign
    code = np.zeros((n, hadrons.MOST), np.int64)
    momentum = np.zeros((n, hadrons.MOST, 4))
    momentum[:, 0] = vertices.hadrons
    qe, res, dis, coherent = (vertices.mode == mode for mode in range(4))
    code[qe, 0] = np.where(charge[qe] == 1, 2212, 2112)
    code[coherent, 0] = np.where(sign[coherent] == 0, 111, 211 * sign[coherent])
    code[res, :2] = hadrons.resonance_decay(generator, charge[res])
    w, anti = vertices.w[dis], pdg[dis] < 0
    code[dis] = hadrons.hadronise(generator, w, charge[dis], anti, proton[dis])
    many = res | dis
    momentum[many] = hadrons.decay(generator, vertices.hadrons[many], code[many])
    inside = nucleus & (vertices.target > 0) & ~coherent
    real = code != 0
    wide, flight = np.zeros((n, hadrons.MOST, 2), np.int64), np.zeros((n, hadrons.MOST, 2, 4))
    wide[real], flight[real] = hadrons.rescatter(
        generator, code[real], momentum[real],
        np.broadcast_to(inside[:, None], code.shape)[real],
    )  # fmt: skip
    lepton = np.where(charged, np.abs(pdg) - 1, 0) * np.sign(pdg)
    return (
        np.concatenate([lepton[:, None], wide.reshape(n, 2 * hadrons.MOST)], axis=1),
        np.concatenate([vertices.lepton[:, None], flight.reshape(n, 2 * hadrons.MOST, 4)], axis=1),
    )
