"""Entropy of 1024 atoms of iron with a vacancy cluster: our route against the plain ones.

    python benchmarks/entropy.py [--repeats 5]

One thread, CPU seconds, medians of paired runs. The peers: LAPACK's full diagonalisation of the
same Hessian (scipy), and a Hessian by automatic differentiation of our own forces (all columns).
"""

from __future__ import annotations

import argparse

from timing import Pair, paired, pin_threads

pin_threads()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from scipy import linalg  # noqa: E402

from physml.atoms import hessian, relax  # noqa: E402
from physml.atoms.defects import NAMED, bcc  # noqa: E402
from physml.atoms.potentials import ackland_mendelev_2004, energy_and_forces, system  # noqa: E402
from physml.atoms.vibrations import factorise, log_determinant  # noqa: E402

BATCH = 96  # columns that automatic differentiation pushes through the forces at once


def hessian_by_autodiff(atoms, potential):
    """All columns of -d force / d x by forward mode, in batches."""
    padded = system(atoms, potential)
    size = 3 * len(atoms)
    x = jnp.asarray(padded.positions)
    rows = x.size

    @jax.jit
    def columns(first):
        forces = lambda x: energy_and_forces(potential, x, padded.species, padded.neighbors)[1]
        tangents = jax.nn.one_hot(first + jnp.arange(BATCH), rows, dtype=x.dtype)
        push = lambda t: jax.jvp(forces, (x,), (t.reshape(x.shape),))[1]
        return -jax.vmap(push)(tangents).reshape(BATCH, rows)[:, :size]

    return lambda: np.concatenate([columns(k) for k in range(0, size, BATCH)])[:size]


def report(name: str, pair: Pair, target: float, agreement: float) -> None:
    """Print one row of the table."""
    met = "met" if pair.ratio >= target else "MISSED"
    print(
        f"{name:44s} {pair.ours.cpu:8.3f} {pair.peer.cpu:9.3f} {pair.ratio:8.1f}x"
        f" {target:6.0f}x {met:7s} {agreement:.1e}"
    )


def main() -> None:
    """Run both comparisons and print their ratios beside the targets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    few = min(repeats, 3)  # automatic differentiation takes a quarter of a minute
    potential = ackland_mendelev_2004()
    atoms = relax(NAMED["V4 tetrahedron"](bcc(8)), potential)
    masses = np.full(len(atoms), potential.masses[0])
    matrix = hessian(atoms, potential)
    results = {}

    def ours():
        results["ours"] = log_determinant(factorise(matrix.copy(), masses))

    def peer():
        values = linalg.eigvalsh(matrix / potential.masses[0], overwrite_a=True)
        results["peer"] = np.log(values[3:]).sum()

    def both(route):
        def run():
            results["hessian"] = hessian(atoms, potential)
            route()

        return run

    print(f"{len(atoms)} atoms, one thread, CPU seconds (median of {repeats} pairs)")
    print(f"{'':44s} {'ours':>8s} {'peer':>9s} {'ratio':>9s} {'target':>7s} {'':7s} difference")
    pair = paired(ours, peer, repeats)
    difference = abs(results["ours"] - results["peer"])
    report("log-determinant against eigenvalues", pair, 5, difference)
    pair = paired(both(ours), both(peer), repeats)
    report("the same, Hessian included in both", pair, 5, difference)
    with jax.enable_x64(True):
        autodiff = hessian_by_autodiff(atoms, potential)
        columns = {}
        pair = paired(
            lambda: hessian(atoms, potential), lambda: columns.update(all=autodiff()), few, warmup=1
        )
    difference = float(np.abs(columns["all"] - matrix).max())
    report(f"Hessian against autodiff ({few} pairs)", pair, 50, difference)


if __name__ == "__main__":
    main()
