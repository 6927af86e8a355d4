"""Angular Fourier series beside quippy, DScribe and featomic: one thread, CPU time, paired runs.

    python benchmarks/afs.py [--quick] [--million]

First table: 1,024 atoms of bcc iron, n_max 3, l_max 10, cutoff 5 Å, neighbour list included for
all. quippy's `cosnx` is the same quantity; the SOAP peers are other descriptors of the same n, l.
Second table: our kernel against the sum over pairs (Chebyshev recurrence of cos theta, as products
with the Gram matrix of each atom's unit vectors), neighbour list excluded for both.
`--million` measures 250,000 and 1,024,000 atoms, each in a process of its own: CPU seconds and peak
memory. A peer that is not installed is named and skipped.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import multiprocessing
import resource
from collections.abc import Callable
from types import ModuleType

from timing import paired, pin_threads, timed

pin_threads()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from ase import Atoms  # noqa: E402

from physml.atoms import descriptors  # noqa: E402
from physml.atoms._afs_kernel import BEYOND, Form, afs_of_padded, radial  # noqa: E402
from physml.atoms.defects import bcc  # noqa: E402
from physml.atoms.descriptors import afs  # noqa: E402

N_MAX, L_MAX, CUTOFF = 3, 10, 5.0


def crystal(cells: int = 8) -> Atoms:
    """Slightly shaken bcc iron of 2 cells^3 atoms."""
    atoms = bcc(cells)
    atoms.rattle(0.05, seed=1)
    return atoms


def module(name: str) -> ModuleType | None:
    """Import a peer, or say that it is skipped."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name.split('.')[0]}: not installed, skipped")
        return None


def quippy_cosnx(atoms: Atoms) -> Callable[[], object] | None:
    """The same descriptor in Fortran."""
    if (quippy := module("quippy.descriptors")) is None:
        return None
    species = "n_species=1 Z=26 species_Z={26} w=1.0"
    text = f"cosnx l_max={L_MAX} n_max={N_MAX} cutoff={CUTOFF} {species}"
    descriptor = quippy.Descriptor(text)
    theirs = np.asarray(descriptor.calc(atoms)["data"])
    difference = np.abs(theirs - afs(atoms)).max() / np.abs(theirs).max()
    print(f"largest difference to cosnx, relative to its largest value: {difference:.1e}")
    return lambda: descriptor.calc(atoms)


def dscribe_soap(atoms: Atoms) -> Callable[[], object] | None:
    """SOAP power spectrum: the default (GTO) basis is the faster; `sigma` as featomic's width."""
    if (dscribe := module("dscribe.descriptors")) is None:
        return None
    soap = dscribe.SOAP(
        species=["Fe"], periodic=True, r_cut=CUTOFF, n_max=N_MAX, l_max=L_MAX, sigma=0.5
    )
    return lambda: soap.create(atoms, n_jobs=1)


def featomic_soap(atoms: Atoms) -> Callable[[], object] | None:
    """SOAP power spectrum with featomic's GTO basis (`max_radial` counts from 0)."""
    if (featomic := module("featomic")) is None:
        return None
    soap = featomic.SoapPowerSpectrum(
        cutoff={"radius": CUTOFF, "smoothing": {"type": "ShiftedCosine", "width": 0.5}},
        density={"type": "Gaussian", "width": 0.5},
        basis={
            "type": "TensorProduct",
            "max_angular": L_MAX,
            "radial": {"type": "Gto", "max_radial": N_MAX - 1},
        },
    )
    return lambda: soap.compute(atoms)


def peers(repeats: int) -> None:
    """Print the table of peers."""
    atoms = crystal()
    rows = [("quippy cosnx", quippy_cosnx, 40.0), ("DScribe SOAP", dscribe_soap, 3.0)]
    rows.append(("featomic SOAP", featomic_soap, 3.0))
    print(f"{'1024 atoms, n 3, l 10, 5 Å':<28}{'ours ms':>9}{'peer ms':>9}{'ratio':>8}")
    for name, make, target in rows:
        if (peer := make(atoms)) is None:
            continue
        pair = paired(lambda: afs(atoms, N_MAX, L_MAX, CUTOFF), peer, repeats)
        mark = "ok" if pair.ratio >= target else "MISSED"
        times = f"{1e3 * pair.ours.cpu:9.1f}{1e3 * pair.peer.cpu:9.1f}{pair.ratio:7.1f}x"
        print(f"{name:<28}{times} (>= {target:g}x {mark})", flush=True)


def afs_by_pairs(vectors: jax.Array, form: Form, cutoff: float) -> jax.Array:
    """The rival kernel: T_l of all cosines of an atom by recurrence, then quadratic forms."""
    r = jnp.sqrt(jnp.sum(vectors * vectors, axis=-1))
    g, unit = radial(r, form.n_max, cutoff), vectors / r[..., None]
    cosine = jnp.einsum("bjx,bkx->bjk", unit, unit)
    before, now = jnp.ones_like(cosine), cosine
    columns = []
    for _ in range(form.l_max + 1):
        columns.append(jnp.einsum("bnj,bnj->bn", g, jnp.einsum("bnj,bjk->bnk", g, before)))
        before, now = now, 2.0 * cosine * now - before
    itself = jnp.sum(g * g, axis=-1)[..., None]
    return (0.5 * (jnp.stack(columns, axis=-1) - itself)).reshape(len(vectors), -1)


def over_chunks(
    kernel: Callable[..., jax.Array], form: Form, cutoff: float, chunk: int
) -> Callable[[jax.Array], jax.Array]:
    """Compiled loop of a kernel over chunks of atoms."""
    split = lambda v: v.reshape(-1, chunk, *v.shape[1:])  # noqa: E731
    return jax.jit(lambda v: jax.lax.map(lambda part: kernel(part, form, cutoff), split(v)))


def compare_kernels(vectors: jax.Array, form: Form, cutoff: float, repeats: int) -> str:
    """CPU ms of both kernels and their ratio, each at the better of two chunk sizes."""
    pairs = []
    for chunk in (8, 32):
        ours = over_chunks(afs_of_padded, form, cutoff, chunk)
        rival = over_chunks(afs_by_pairs, form, cutoff, chunk)
        np.testing.assert_allclose(ours(vectors), rival(vectors), rtol=1e-9, atol=1e-9)
        run = functools.partial(lambda f: f(vectors).block_until_ready(), ours)
        rival_run = functools.partial(lambda f: f(vectors).block_until_ready(), rival)
        pairs.append(paired(run, rival_run, repeats))
    ours_ms = 1e3 * min(pair.ours.cpu for pair in pairs)
    pairs_ms = 1e3 * min(pair.peer.cpu for pair in pairs)
    return f"{ours_ms:12.1f}{pairs_ms:10.1f}{pairs_ms / ours_ms:7.1f}x"


def variants(repeats: int) -> None:
    """Print both kernels by cutoff and n."""
    title = "kernel alone, 1024 atoms, l 10"
    print(f"\n{title:<34}{'factored ms':>12}{'pairs ms':>10}{'ratio':>8}")
    for cutoff in (5.0, 6.5, 8.0):
        ((_, table),) = descriptors._blocks(crystal(), cutoff, "crystal")
        counts = (np.abs(table).max(axis=-1) < BEYOND * cutoff).sum(axis=1)
        for n_max in (3, 20):
            times = compare_kernels(jnp.asarray(table), Form(n_max, L_MAX), cutoff, repeats)
            name = f"{cutoff} Å ({counts.mean():.0f} neighbours), n {n_max}"
            print(f"{name:<34}{times}", flush=True)


def _large(cells: int) -> tuple[int, float, float]:
    """Atoms, CPU seconds and peak memory (GB) of one large crystal."""
    afs(crystal(4))
    atoms = crystal(cells)
    seconds = timed(lambda: afs(atoms)).cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return len(atoms), seconds, peak


def million() -> None:
    """Print time and memory of 250,000 and 1,024,000 atoms."""
    print(f"\n{'atoms':>10}{'CPU s':>9}{'us/atom':>9}{'peak GB':>9}")
    per_atom = []
    for cells in (50, 80, 50, 80):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            n, seconds, peak = pool.apply(_large, (cells,))
        per_atom.append(seconds / n)
        print(f"{n:10d}{seconds:9.2f}{1e6 * seconds / n:9.2f}{peak:9.2f}", flush=True)
    growth = sum(per_atom[1::2]) / sum(per_atom[::2])
    verdict = "ok" if abs(growth - 1) <= 0.1 and peak < 4 else "MISSED"
    print(f"time per atom, large over small: {growth:.3f} (1 +- 0.1, under 4 GB: {verdict})")


def main() -> None:
    """Run the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three repeats instead of eleven")
    parser.add_argument("--million", action="store_true", help="also 250,000 and 1,024,000 atoms")
    options = parser.parse_args()
    repeats = 3 if options.quick else 11
    peers(repeats)
    with jax.enable_x64(True):
        variants(repeats)
    if options.million:
        million()


if __name__ == "__main__":
    main()
