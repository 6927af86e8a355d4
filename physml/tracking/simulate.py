"""Collisions in a tracking detector, from a key: particles, their helices, hits, noise.

A simplified event maker, not a simulation of any experiment. One hard collision and a Poisson
number of others (pile-up) lie along the beam; `spectrum` says what comes out of them. K0s, Lambda
and heavy hadrons decay on their way; `transport` takes the charged particles through the layers,
where nuclear collisions make more of them. A crossing gives a hit on every flat module it meets,
two where modules overlap, unless the module missed it.

Tuned to event 1000 of the TrackML challenge (arXiv 1904.06778), beside `spectrum`: the beam, kaons
and lambdas (particles that start away from the beam), nuclear collisions (`transport.Material`, and
what comes out of them), the least transverse momentum (particles below 0.15 GeV left no hits there)
and noise (the same on every module, 15 % of all hits). Radiation lengths and inefficiency are round
numbers. Errors are uniform over one pitch; those of TrackML's pixels, which share charge, are three
to five times smaller, those of its strips about 0.7 times.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32

from physml.errors import ConfigError
from physml.tracking import helix, modules, spectrum, transport
from physml.tracking.events import Collision, Hits, Particles
from physml.tracking.geometry import Detector, trackml
from physml.tracking.spectrum import MASS, Kind, Spectrum
from physml.tracking.transport import Crossings, Flights, Material

MOST_MU = 2000.0  # 1 million hits, 0.4 GB
FRAGMENTS = (0.1, 0.5, 0.33)
"""GeV: bounds and scale of the momenta after nuclear collisions, as in a TrackML event."""


class Decay(NamedTuple):
    """A decay to two charged particles."""

    mass: float  # GeV
    length: float  # light speed times mean life, mm
    pair: tuple[int, int]  # PDG codes without sign; the first's sign is drawn


KAON = Decay(0.497611, 26.844, (211, 211))  # K0s (PDG)
LAMBDA = Decay(1.115683, 78.46, (2212, 211))  # and its antiparticle (PDG)
BEAUTY = 5.27966, 0.455  # GeV and mm of a B0 (PDG), which stands for all heavy hadrons


class Options(NamedTuple):
    """How collisions are made and measured."""

    min_pt: float = 0.15  # GeV, of every particle in the table
    max_eta: float = 4.0  # abs, of particles from the beam
    beam_width: float = 0.015  # mm, standard deviation of the collisions in x and in y
    beam_length: float = 5.5  # mm, the same in z
    kaons: float = 0.047  # K0s that decay to two pions, per charged particle
    lambdas: float = 0.013  # Lambda and antiparticles that decay to p pi, per charged particle
    heavy: float = 0.15  # share of the hard collision's particles that come from heavy hadrons
    secondaries: float = 2.5  # mean charged particles of a nuclear collision
    resolution: float = 1.0  # in units of pitch / sqrt(12)
    inefficiency: float = 0.02  # share of missed hits
    noise: float = 0.15  # share of all hits
    material: Material = Material()


DEFAULT = Options()


class _Born(NamedTuple):
    """Particles to be followed."""

    pdg: np.ndarray
    vertex: np.ndarray
    momentum: np.ndarray


def simulate(
    key: tuple[int, ...],
    mu: float = 200.0,
    detector: Detector | None = None,
    shapes: Spectrum = spectrum.DEFAULT,
    options: Options = DEFAULT,
) -> Collision:
    """Make one collision; the same key gives the same collision.

    Args:
        key: whole numbers of 0 or more, such as (seed, event); its last is the event's number.
        mu: mean number of pile-up collisions.
        detector: with its `rings`; by default `geometry.trackml()`.
        shapes: of the spectra, see `spectrum`.
        options: see `Options`.

    Returns:
        Hits by layer and module, and every charged particle above `min_pt`, seen or not.

    Raises:
        ConfigError: an argument is out of range, or the detector does not say where modules stand.
    """
    detector = trackml() if detector is None else detector
    check(key, mu, detector, options)
    generator = np.random.default_rng(list(key))
    born = _collisions(generator, mu, shapes, options)
    crossings = _follow(generator, born, detector, options)
    more = _nuclear(generator, crossings, options)
    later = _follow(generator, more, detector, options)
    later = later._replace(particle=later.particle + len(born.pdg))
    crossings, born = transport.gather([crossings, later]), _join([born, more])
    particle, points = _seen(generator, crossings, detector, options)
    errors = options.resolution * (generator.random((2, len(particle))) - 0.5)
    layer, module, position = modules.measure(points, detector, errors)
    order = np.lexsort([module, layer])
    hits = Hits(position[order], layer[order], module[order], np.arange(1, len(order) + 1))
    return Collision(int(key[-1]), hits, _table(born), particle[order])


def _seen(
    generator: np.random.Generator, crossings: Crossings, detector: Detector, options: Options
) -> tuple[Int32[np.ndarray, "n"], modules.Points]:
    """Particle of each hit, or -1, and the point on its module: what was not missed, and noise."""
    row, points = modules.cross(crossings, detector)
    seen = generator.random(len(row)) >= options.inefficiency
    noise = generator.poisson(seen.sum() * options.noise / (1 - options.noise))
    spots = modules.anywhere(generator, detector, noise)
    particle = np.concatenate([crossings.particle[row[seen]], np.full(noise, -1)])
    return particle.astype(np.int32), modules.join([modules.select(points, seen), spots])


def check(key: tuple[int, ...], mu: float, detector: Detector, options: Options) -> None:
    """Refuse arguments that are out of range.

    Raises:
        ConfigError: names the argument and its range.
    """
    if not key or min(key) < 0:
        raise ConfigError("key", f"is {key}", "give a tuple of whole numbers of 0 or more")
    if not 0 <= mu <= MOST_MU:
        raise ConfigError("mu", f"is {mu}", f"give 0 to {MOST_MU:g}")
    if detector.rings is None:
        what = "does not say where its modules stand (rings)"
        raise ConfigError("detector", what, "use geometry.trackml()")
    ranges = {
        "min_pt": (0.05, 100.0), "max_eta": (0.1, 6.0), "beam_width": (0.0, 10.0),
        "beam_length": (0.0, 1000.0), "kaons": (0.0, 1.0), "lambdas": (0.0, 1.0),
        "heavy": (0.0, 1.0), "secondaries": (0.0, 100.0), "resolution": (0.0, 10.0),
        "inefficiency": (0.0, 1.0), "noise": (0.0, 0.9),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        if not low <= getattr(options, name) <= high:
            value = getattr(options, name)
            raise ConfigError(f"options.{name}", f"is {value}", f"give {low:g} to {high:g}")
    thickness, collision = options.material.thickness, options.material.collision
    if not (1e-4 <= thickness <= 1.0 and 0 <= collision <= 1):
        what = f"thickness = {thickness}, collision = {collision}"
        raise ConfigError("options.material", what, "give 1e-4 to 1 X0 and a chance, per mm")


def _collisions(
    generator: np.random.Generator, mu: float, shapes: Spectrum, options: Options
) -> _Born:
    """Particles of the hard collision and of pile-up, and of decays."""
    pile_up = generator.poisson(mu)
    width = [options.beam_width] * 2 + [options.beam_length]
    places = generator.normal(size=(1 + pile_up, 3)) * width
    seen = options.min_pt, options.max_eta
    hard_count = spectrum.multiplicities(generator, shapes.hard, 1, *seen)
    counts = spectrum.multiplicities(generator, shapes.pile_up, pile_up, *seen)
    hard = _prompt(generator, shapes.hard, np.repeat(places[:1], hard_count, 0), shapes, options)
    soft = _prompt(generator, shapes.pile_up, np.repeat(places[1:], counts, 0), shapes, options)
    # Particles of heavy hadrons start where those decayed, which had twice their momentum.
    heavy = generator.random(hard_count[0]) < options.heavy
    flight = heavy * generator.exponential(BEAUTY[1], hard_count[0]) / BEAUTY[0]
    hard = hard._replace(vertex=hard.vertex + 2 * flight[:, None] * hard.momentum)
    prompt, kind = _join([hard, soft]), shapes.pile_up
    kaons = _strange(generator, prompt, KAON, options.kaons, kind, options)
    lambdas = _strange(generator, prompt, LAMBDA, options.lambdas, kind, options)
    return _join([prompt, kaons, lambdas])


def _prompt(
    generator: np.random.Generator, kind: Kind, vertex: np.ndarray, shapes: Spectrum,
    options: Options,
) -> _Born:  # fmt: skip
    """Particles that come from the beam, one for each vertex."""
    n = len(vertex)
    pt = spectrum.transverse_momenta(generator, kind, n, options.min_pt)
    eta = spectrum.pseudorapidities(generator, kind, n, options.max_eta)
    codes, shares = zip(*shapes.species, strict=True)
    pdg = generator.choice(codes, n, p=np.array(shares) / sum(shares))
    return _Born(_signed(generator, pdg), vertex, _momentum(generator, pt, eta))


def _signed(generator: np.random.Generator, pdg: np.ndarray) -> np.ndarray:
    return np.asarray(pdg * generator.choice([-1, 1], len(pdg)))


def _momentum(generator: np.random.Generator, pt: np.ndarray, eta: np.ndarray) -> np.ndarray:
    phi = generator.uniform(-np.pi, np.pi, len(pt))
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=1)


def _strange(
    generator: np.random.Generator, prompt: _Born, decay: Decay, chance: float, kind: Kind,
    options: Options,
) -> _Born:  # fmt: skip
    """Charged pairs from decays in flight of neutral particles that come with others."""
    mass, heavy, light = decay.mass, MASS[decay.pair[0]], MASS[decay.pair[1]]
    n = generator.poisson(chance * len(prompt.pdg))
    vertex = prompt.vertex[generator.integers(max(len(prompt.pdg), 1), size=n)]
    # They are harder than pions: the temperature rises with the mass.
    kind = kind._replace(temperature=kind.temperature * (1 + mass))
    pt = spectrum.transverse_momenta(generator, kind, n, options.min_pt)
    eta = spectrum.pseudorapidities(generator, kind, n, options.max_eta)
    momentum = _momentum(generator, pt, eta)
    flight = generator.exponential(decay.length, n)
    vertex = vertex + (flight / mass)[:, None] * momentum
    squares = mass**2 - (heavy + light) ** 2, mass**2 - (heavy - light) ** 2
    size = np.sqrt(squares[0] * squares[1]) / (2 * mass)
    rest = size * _isotropic(generator, n)
    first = boost(momentum, mass, rest, float(np.hypot(size, heavy)))
    sign = generator.choice([-1, 1], n)
    pdg = np.concatenate([sign * decay.pair[0], -sign * decay.pair[1]])
    both = np.concatenate([first, momentum - first])
    return _kept(_Born(pdg, np.concatenate([vertex, vertex]), both), options)


def _isotropic(generator: np.random.Generator, n: int) -> np.ndarray:
    z, phi = generator.uniform(-1, 1, n), generator.uniform(-np.pi, np.pi, n)
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)


def boost(momentum: np.ndarray, mass: float, rest: np.ndarray, energy: float) -> np.ndarray:
    """Momenta that in the frame of a moving particle are `rest`, with an energy there."""
    total = np.sqrt((momentum**2).sum(axis=1) + mass**2)
    along = (momentum * rest).sum(axis=1) / (mass + total)
    return np.asarray(rest + ((along + energy) / mass)[:, None] * momentum)


def _nuclear(generator: np.random.Generator, crossings: Crossings, options: Options) -> _Born:
    """Charged particles of nuclear collisions in the layers: pions and protons."""
    ends = np.flatnonzero(crossings.collided)
    count = generator.poisson(options.secondaries, len(ends))
    parent = np.repeat(ends, count)
    at = helix.Helix(*(column[parent] for column in crossings.at))
    n = len(parent)
    # Exponential in the momentum between the bounds.
    low, high = np.exp(-np.array(FRAGMENTS[:2]) / FRAGMENTS[2])
    size = -FRAGMENTS[2] * np.log(generator.uniform(high, low, n))
    momentum = size[:, None] * _isotropic(generator, n)
    pdg = generator.choice([211, -211, 2212], n, p=[0.27, 0.27, 0.46])
    return _kept(_Born(pdg, np.stack([at.x, at.y, at.z], axis=1), momentum), options)


def _kept(born: _Born, options: Options) -> _Born:
    seen = np.hypot(born.momentum[:, 0], born.momentum[:, 1]) > options.min_pt
    return _Born(*(column[seen] for column in born))


def _join(parts: list[_Born]) -> _Born:
    return _Born(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _follow(
    generator: np.random.Generator, born: _Born, detector: Detector, options: Options
) -> Crossings:
    charge = _charge(born.pdg)
    start = helix.helix(born.vertex, born.momentum, charge, detector.field)
    mass = np.zeros(len(charge))
    for code, value in MASS.items():
        mass[np.abs(born.pdg) == code] = value
    size = np.linalg.norm(born.momentum, axis=1)
    return transport.fly(generator, Flights(start, size, mass), detector, options.material)


def _charge(pdg: np.ndarray) -> Float64[np.ndarray, "p"]:
    """Charges: PDG codes of negative leptons are positive."""
    return np.asarray(np.sign(pdg) * np.where(np.abs(pdg) < 20, -1.0, 1.0))


def _table(born: _Born) -> Particles:
    numbers = np.arange(1, len(born.pdg) + 1)
    charge = _charge(born.pdg).astype(np.int8)
    return Particles(numbers, born.pdg.astype(np.int32), charge, born.vertex, born.momentum)
