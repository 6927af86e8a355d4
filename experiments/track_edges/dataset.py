"""Collisions of our maker or of a user's file, and their graphs as rows to train on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from physml.errors import ConfigError, DataError
from physml.options import applied
from physml.progress import progress
from physml.tracking import events, geometry, graphs, readers
from physml.tracking.events import Collision, Target
from physml.tracking.objective import edge_weights
from physml.tracking.simulate import simulate

from .config import Config

# Keys of the maker. Test collisions do not depend on the seed, so that all runs share them.
KEYS = {"test": 1, "validation": 2, "train": 3}
DETECTOR = geometry.trackml()
FEWEST = 3  # hits of a track


def load(config: Config) -> dict[str, dict[str, np.ndarray]]:
    """Graphs of the splits train and validation, all padded to one size.

    Raises:
        DataError: a graph is over the limit.
    """
    sizes = {"train": config.collisions, "validation": config.validation}
    if applied(config):  # a finished fit needs no rows but to know their shape
        sizes = dict.fromkeys(sizes, 1)
    made = {
        name: list(progress(produced(config, name, size), f"making {name}", size))
        for name, size in sizes.items()
    }
    cut = {name: [p for c in own for p in pieces(config, c)] for name, own in made.items()}
    everything = [piece.graph for own in cut.values() for piece in own]
    nodes = graphs.bucket(max(len(graph.nodes) for graph in everything) + 1)
    edges = graphs.bucket(max(len(graph.edges) for graph in everything))
    return {name: rows(own, nodes, edges) for name, own in cut.items()}


class Piece(NamedTuple):
    """A graph, or a sector of one, with what its edges are and weigh."""

    graph: Any
    labels: graphs.EdgeLabels
    weight: np.ndarray


def pieces(config: Config, collision: Collision) -> Iterator[Piece]:
    """The graph of a collision, cut into sectors of equal width in phi."""
    graph = graph_of(config, collision)
    labels = graphs.edge_labels(graph, collision, target(config))
    weight = edge_weights(graph, collision, labels, config.weights)
    phi = np.arctan2(*collision.hits.position[:, [1, 0]].T)
    sector = np.floor((phi / (2 * np.pi) + 0.5) * config.sectors).clip(0, config.sectors - 1)
    for k in range(config.sectors):
        inside, edges = graphs.part(graph, sector == k)
        if len(inside.edges):
            own = graphs.EdgeLabels(*(column[edges] for column in labels))
            yield Piece(inside, own, weight[edges])


def rows(own: Sequence[Piece], nodes: int, edges: int) -> dict[str, np.ndarray]:
    """Pieces as rows, padded to one size."""
    found = graphs.stack([p.graph for p in own], [p.labels for p in own], nodes, edges)
    for row, piece in zip(found["weight"], own, strict=True):
        row[: len(piece.weight)] = piece.weight
    return found


def produced(config: Config, name: str, size: int, mu: float | None = None) -> Iterator[Collision]:
    """Collisions of a split, with the hits that the options keep."""
    seed = 0 if name == "test" else config.seed
    for k in range(size):
        mean = config.mu if mu is None else mu
        key = (KEYS[name], seed, k) if mean == config.mu else (KEYS[name], seed, round(mean), k)
        yield kept(config, simulate(key, mean, DETECTOR))


def own(config: Config) -> Iterator[Collision]:
    """Collisions of the user's file; with truth, the hits that the options keep.

    Raises:
        DataError: see `readers.read_collisions`; or no collision with the hits of a track.
    """
    assert config.hits is not None
    found = readers.read_collisions(
        config.hits, DETECTOR, config.mapping,
        tree=config.tree, unit=config.unit, truth=config.truth,
    )  # fmt: skip
    count = 0
    for collision in found:
        used = said(config, collision)
        if len(used.hits.layer) >= FEWEST:
            count += 1
            yield used
        else:
            text = f"is left out: {len(used.hits.layer)} hits are too few for a track"
            print(f"event {collision.event} {text}", file=sys.stderr)
    if not count:
        what = f"has no collision with {FEWEST} hits to use, as many as a track needs"
        fast = (
            f", of particles above {config.min_pt:g} GeV"
            if config.occupancy != "full" and config.truth
            else ""
        )
        raise DataError(config.hits, what, f"give one with more hits{fast}")


def said(config: Config, collision: Collision) -> Collision:
    """What is used of a user's collision; says what is left out, or what the network lacks."""
    if config.occupancy == "full":
        return collision
    name, n = f"event {collision.event}", len(collision.hits.layer)
    if collision.particle is None:
        text = f"has no truth: all its {n} hits are used, but the network was trained on those of"
        what = f"particles above {config.min_pt:g} GeV: do not trust its tracks"
        print(f"{name} {text} {what} (train with --occupancy full)", file=sys.stderr)
        return collision
    used = kept(config, collision)
    left = n - len(used.hits.layer)
    text = f"{left} of {n} hits are left out with truth (particles below {config.min_pt:g} GeV"
    print(f"{name}: {text}, noise)", file=sys.stderr)
    return used


def kept(config: Config, collision: Collision) -> Collision:
    """All hits, or those of particles above the pT that is looked for (a cut with truth)."""
    if config.occupancy == "full":
        return collision
    if collision.particle is None or collision.particles is None:
        raise ConfigError("--occupancy", "targets needs truth", "give --occupancy full")
    fast = np.append(events.pt(collision.particles.momentum) > config.min_pt, False)  # noise: -1
    return events.select(collision, fast[collision.particle])


def target(config: Config) -> Target:
    """Particles that are looked for."""
    return Target(min_pt=config.min_pt)


def graph_of(config: Config, collision: Collision) -> Any:
    """Graph of the hits of a collision."""
    cuts = graphs.Cuts(min_pt=0.95 * config.min_pt)  # scattering bends, energy loss slows
    return graphs.build_graph(collision.hits, DETECTOR, cuts, max_edges=config.max_edges)
