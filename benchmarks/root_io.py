"""Reading a large ROOT file in ranges, beside bare uproot: CPU time and peak memory (Linux).

    python benchmarks/root_io.py [--megabytes 1000] [--repeats 5] [--step ENTRIES]

Makes one file of ten flat columns (float64 with 16 random bits, zlib) in a temporary folder, and
sums every column with `physml.io.root.iterate` and with `uproot`'s own `iterate` at steps of the
same memory. Time: both in turn, medians, one thread. Memory: each in a process of its own, the peak
of its resident memory above what it holds after its imports. The same for an RNTuple, where ours
also verifies the checksum of every page.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path

from timing import paired, pin_threads

pin_threads()

import numpy as np  # noqa: E402
import uproot  # noqa: E402

from physml.io import root  # noqa: E402

NAMES = [f"x{k}" for k in range(10)]
ROWS = 200_000  # per basket and column (1.6 MB), or per cluster
LIMIT_MB = 500.0


def make(path: Path, megabytes: int, kind: str) -> int:
    """Write the file and return its entries."""
    random = np.random.default_rng(0)
    total = megabytes * 1_000_000 // (8 * len(NAMES))
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        make_tree = file.mktree if kind == "TTree" else file.mkrntuple
        tree = make_tree("events", dict.fromkeys(NAMES, np.dtype("f8")))
        for start in range(0, total, ROWS):
            rows = min(ROWS, total - start)
            tree.extend({name: random.integers(0, 1 << 16, rows) / 256.0 for name in NAMES})
    return total


def ours(path: Path, step: int | None) -> float:
    """Sum of all columns through physml."""
    parts = root.iterate(path, "events", NAMES, step)
    return sum(float(values.sum()) for part in parts for values in part.values())


def bare(path: Path, step: int | None) -> float:
    """Sum of all columns through uproot alone."""
    with uproot.open({str(path): "events"}, array_cache=None) as tree:
        size = "64 MiB" if step is None else step
        parts = tree.iterate(NAMES, step_size=size, library="np")
        return sum(float(part[name].sum()) for part in parts for name in NAMES)


def resident(field: str) -> float:
    """Memory of this process in MB: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(field))


def peak(read: Callable[[Path, int | None], float], path: Path, step: int | None) -> float:
    """MB above idle that a reader takes at its highest."""
    idle = resident("VmRSS")
    read(path, step)
    return resident("VmHWM") - idle


def in_new_process(
    read: Callable[[Path, int | None], float], path: Path, step: int | None
) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak, (read, path, step))


def compare(path: Path, kind: str, step: int | None, repeats: int) -> None:
    """Print one row: both times, their ratio, both peaks."""
    assert ours(path, step) == bare(path, step)
    run = [functools.partial(read, path, step) for read in (ours, bare)]
    pair = paired(run[0], run[1], repeats, warmup=0)
    mine, theirs = (in_new_process(read, path, step) for read in (ours, bare))
    verdict = "ok" if mine < LIMIT_MB else "MISSED"
    times = f"{pair.ours.cpu:9.2f}{pair.peer.cpu:10.2f}{pair.ratio:8.2f}x"
    print(f"{kind:<8}{times}{mine:10.0f}{theirs:11.0f}   (< {LIMIT_MB:g} MB {verdict})", flush=True)


def main() -> None:
    """Make the files, run both readers, delete the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000, help="of columns, unpacked")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--step", type=int, help="entries per part; by default 64 MiB")
    options = parser.parse_args()
    print(f"{'':<8}{'ours s':>9}{'uproot s':>10}{'ratio':>9}{'ours MB':>10}{'uproot MB':>11}")
    for kind in ("TTree", "RNTuple"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "flat.root"
            entries = make(path, options.megabytes, kind)
            compare(path, kind, options.step, options.repeats)
            size = path.stat().st_size / 1e6
            print(f"        {entries} entries, {8e-6 * entries * len(NAMES):.0f} MB in {size:.0f}")


if __name__ == "__main__":
    main()
