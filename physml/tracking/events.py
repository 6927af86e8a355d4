"""The arrays that the tracking domain passes on: hits, particles, collisions and tracks.

Lengths are mm, momenta GeV, angles rad, the field T. z points along the beam and the field, r is
the distance from the z axis. Hits name their layer by its place in `geometry.Detector`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int32, Int64


class Hits(NamedTuple):
    """n measured points."""

    position: Float64[np.ndarray, "n 3"]  # x y z, mm
    layer: Int32[np.ndarray, "n"]  # place in the detector's layers
    module: Int32[np.ndarray, "n"]  # number within its layer; -1 where none is known
    hit_id: Int64[np.ndarray, "n"]  # as the file names it


class Particles(NamedTuple):
    """p generated particles that are charged."""

    particle_id: Int64[np.ndarray, "p"]  # as the file names it, not 0
    pdg: Int32[np.ndarray, "p"]  # PDG code; 0: unknown
    charge: Int8[np.ndarray, "p"]  # e
    vertex: Float64[np.ndarray, "p 3"]  # where it starts, mm
    momentum: Float64[np.ndarray, "p 3"]  # there, GeV


class Collision(NamedTuple):
    """One collision: what was measured, and its truth where there is one."""

    event: int
    hits: Hits
    particles: Particles | None = None
    particle: Int32[np.ndarray, "n"] | None = None  # row of `particles` of each hit; -1: noise


class Tracks(NamedTuple):
    """Hits of t tracks: those of track i are hit[offsets[i] : offsets[i + 1]], inner ones first."""

    offsets: Int64[np.ndarray, "t+1"]
    hit: Int64[np.ndarray, "k"]  # row of `Hits`


class Target(NamedTuple):
    """Which particles are looked for; the denominator of every efficiency."""

    min_pt: float = 1.0  # GeV
    max_eta: float = 4.0  # abs
    max_radius: float = 260.0  # mm, of the vertex from the z axis (GNN4ITk: r_prod < 260 mm)
    min_layers: int = 3  # layers with a hit
    electrons: bool = False  # also electrons and positrons (GNN4ITk leaves them out)


def pt(momentum: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n"]:
    """Momentum across the beam, GeV."""
    return np.asarray(np.hypot(momentum[:, 0], momentum[:, 1]))


def eta(vector: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n"]:
    """Pseudorapidity asinh(z / r) of momenta or positions; infinite along the beam."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.arcsinh(vector[:, 2] / np.hypot(vector[:, 0], vector[:, 1])))


def tracks_of(hits: list[np.ndarray]) -> Tracks:
    """Tracks from one array of hit rows each."""
    lengths = [len(rows) for rows in hits]
    joined = np.concatenate(hits) if hits else np.empty(0)
    return Tracks(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), joined.astype(np.int64)
    )


def select(collision: Collision, kept: Bool[np.ndarray, "n"]) -> Collision:
    """The collision with some of its hits; all particles stay."""
    hits = Hits(*(column[kept] for column in collision.hits))
    particle = collision.particle
    return collision._replace(hits=hits, particle=None if particle is None else particle[kept])


def targets(collision: Collision, target: Target) -> Bool[np.ndarray, "p"]:
    """Particles of a collision that count as looked for.

    Raises:
        ValueError: the collision has no truth.
    """
    particles = collision.particles
    if particles is None or collision.particle is None:
        raise ValueError("a collision without truth has no targets")
    n = len(particles.pdg)
    own = collision.particle >= 0
    layers = int(collision.hits.layer.max(initial=0)) + 1
    pair = np.unique(collision.particle[own].astype(np.int64) * layers + collision.hits.layer[own])
    crossed = np.bincount(pair // layers, minlength=n)
    found = (
        (pt(particles.momentum) > target.min_pt)
        & (np.abs(eta(particles.momentum)) < target.max_eta)
        & (np.hypot(particles.vertex[:, 0], particles.vertex[:, 1]) < target.max_radius)
        & (crossed >= target.min_layers)
        & (particles.charge != 0)
    )
    return np.asarray(found if target.electrons else found & (np.abs(particles.pdg) != 11))


def true_edges(collision: Collision) -> Int64[np.ndarray, "2 k"]:
    """Pairs of hits that follow each other on a particle: row 0 the inner, row 1 the outer one.

    The hits of a particle are ordered by their distance from its vertex. Hits that follow each
    other in one layer (overlapping modules) stand for each other: each of them is joined to each
    hit of the next layer crossed, and not to its neighbour in the layer (as in acorn).
    """
    particle, particles = collision.particle, collision.particles
    if particle is None or particles is None:
        raise ValueError("a collision without truth has no true edges")
    rows = np.flatnonzero(particle >= 0)
    away = collision.hits.position[rows] - particles.vertex[particle[rows]]
    rows = rows[np.lexsort([np.einsum("ij,ij->i", away, away), particle[rows]])]
    own, layer = particle[rows], collision.hits.layer[rows]
    new_particle = np.diff(own, prepend=-1) != 0
    group = np.cumsum(new_particle | (np.diff(layer, prepend=-1) != 0)) - 1
    start = np.searchsorted(group, np.arange(group[-1] + 2 if len(group) else 1))
    size = np.diff(start)
    # A group is joined to the one after it when both are of one particle.
    inner = np.flatnonzero(~new_particle[start[1:-1]])
    count = size[inner] * size[inner + 1]
    pair = np.repeat(np.arange(len(inner)), count)
    k = np.arange(len(pair)) - np.repeat(np.cumsum(count) - count, count)
    a = start[inner[pair]] + k // size[inner[pair] + 1]
    b = start[inner[pair] + 1] + k % size[inner[pair] + 1]
    return np.stack([rows[a], rows[b]])
