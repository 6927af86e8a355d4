"""Edges between hits, classified by a graph network and joined to tracks.

Paper: the GNN4ITk pipeline (acorn CTD_2023, ATL-SOFT-PROC-2023-038; Exa.TrkX, arXiv 2103.06995), on
the TrackML detector (arXiv 1904.06778).
Cost: smoke about a minute, default under 5 minutes on 2 CPU cores, no download; paper: a GPU, and
17 GB of memory on the host, where its 210 graphs of about a million edges are held.
Expected: the claims of this folder's README. Smoke and default keep only hits of particles above
the pT that is looked for, a cut with truth as in arXiv 2103.16701; `--occupancy full` keeps all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from physml.errors import ConfigError
from physml.options import (
    Descent,
    EdgeLoss,
    EdgeWeight,
    applied,
    apply_to,
    check_descent,
    check_ranges,
    limit,
)
from physml.tracking.mapping import check_mapping, parse_mapping


@dataclass(frozen=True)
class Config:
    """Options of the tracking experiment."""

    seed: int = 0  # of training collisions, weights, batches; the test collisions stay the same
    collisions: int = 48  # to train on
    validation: int = 4  # collisions that choose the best weights
    test: int = 8  # collisions that are only measured on
    mu: float = 200.0  # mean number of pile-up interactions
    occupancy: Literal["targets", "full"] = "targets"  # hits of particles above min_pt, or all
    min_pt: float = 1.0  # GeV, of the particles that are looked for and of the cuts on edges
    max_edges: int = limit(3_000_000)  # of one graph; larger ones are refused
    sectors: int = 1  # parts in phi that a training graph is cut into; tests see whole graphs
    width: int = 32  # of the network
    layers: int = 4  # message passing steps
    half: bool = False  # bfloat16 activations
    recompute: bool = False  # messages again in the backward pass, to save memory
    blocks: int = 1  # parts in which the edges of a step are computed, to save memory
    loss: EdgeLoss = EdgeLoss()  # cross-entropy or focal
    weights: tuple[EdgeWeight, ...] = (EdgeWeight(1.0, label=False),)  # in the loss; later ones win
    descent: Descent = Descent(steps=300, batch_size=2, learning_rate=5e-3, evaluate_every=100)
    hits: Path | None = apply_to()  # own collisions: TrackML folder, ACTS ROOT, any ROOT tree
    mapping: str | None = apply_to()  # columns of a ROOT tree: "x=hit_x,y=hit_y,..."
    tree: str | None = apply_to()  # its name, where the file holds several
    unit: Literal["mm", "cm", "m"] = apply_to("mm")  # of the coordinates in that file
    truth: bool = apply_to(True)  # use the truth in that file; --no-truth: only find tracks
    export: bool = apply_to(False)  # also write the network as ONNX and StableHLO, and compare


def check(config: Config) -> None:
    """Refuse options out of range before any work.

    Raises:
        ConfigError: names the option and the range.
    """
    ranges = {
        "collisions": (2, 10**6), "validation": (1, 10**4), "test": (1, 10**4), "mu": (0.0, 1000.0),
        "min_pt": (0.35, 100.0), "max_edges": (1000, 10**9), "width": (4, 2048), "layers": (1, 50),
        "blocks": (1, 1000), "sectors": (1, 1000),
    }  # fmt: skip
    check_ranges(config, ranges)
    check_ranges(config.loss, {"gamma": (0.0, 10.0), "positive": (1e-6, 1e6)}, "loss.")
    check_descent(config.descent)
    for option in ("mapping", "tree", "unit", "truth"):
        if option in applied(config) and config.hits is None:
            raise ConfigError(f"--{option}", "changes nothing without --hits", "give --hits too")
    if config.hits is not None and not config.hits.exists():
        raise ConfigError("--hits", f"{config.hits} is not there", "check the path")
    if config.mapping is not None and config.hits.suffix != ".root":
        what = "names columns of a ROOT tree, which --hits is not"
        raise ConfigError("--mapping", what, "leave it out, or give a file that ends in .root")
    if config.mapping is not None:
        check_mapping(parse_mapping(config.mapping, "--mapping"), config.truth, "--mapping")
    elif config.tree is not None:
        raise ConfigError("--tree", "changes nothing without --mapping", "give --mapping too")


PRESETS: Mapping[str, Config] = {
    "smoke": Config(
        collisions=6, validation=1, test=1, mu=40, width=16, layers=2,
        descent=Descent(steps=60, batch_size=2, learning_rate=5e-3, evaluate_every=20),
    ),
    "default": Config(),
    "paper": Config(
        # All graphs are held in memory, about 50 MB each: 10 GB, and 17 GB while they are made.
        collisions=200, validation=10, test=20, occupancy="full", width=128, layers=8, half=True,
        recompute=True, blocks=8,
        weights=(EdgeWeight(0.1, label=False),),  # as GNN4ITk
        descent=Descent(
            steps=200_000, batch_size=1, learning_rate=5e-4, weight_decay=1e-4, evaluate_every=2000
        ),
    ),
}  # fmt: skip
