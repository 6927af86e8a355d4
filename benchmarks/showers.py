"""Showers of the CaloChallenge's data set 1, photons: the maker, and the generator beside torch.

    python benchmarks/showers.py [--quick] [--widths 256 256]

One core, CPU time, medians of paired runs; a shower is drawn from nothing, its normal deviates
included, by each program with its own. torch runs eagerly with our weights, sharing and gates
too; the largest difference from the same deviates is printed first. onnxruntime runs the exported
file, with NumPy's deviates. The weights are fresh: time does not depend on what they are.

The Geant4 time, 0.103 CPU s for an electron of 10 GeV in lead and liquid argon, is that of a native
Geant4 11.4.0 program without a physics list of its own (see `physml.calorimeter.readers` for its
showers), on a busy core of an AMD EPYC; another detector than that of data set 1.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from timing import paired, pin_threads, timed

pin_threads()

import jax  # noqa: E402
import numpy as np  # noqa: E402

from physml import export  # noqa: E402
from physml.calorimeter import exports, generator, geometry, objective, simulate  # noqa: E402
from physml.calorimeter.generator import HEAD_LATENT, LATENT, Grid, Scale  # noqa: E402

GEANT4 = 0.103  # CPU s, see above
LARGEST = 256.0 * 2**14  # MeV
ENERGIES = 256.0 * 2.0 ** np.arange(15)
BLOCK = 500  # showers at a time, by both: more would not stay in the caches
TARGETS = {1: 0.1, 100: 0.02, 10_000: 0.02}  # ms per shower, by batch


class Made(NamedTuple):
    """A generator ready to run."""

    net: Any
    weights: Any
    scale: Scale
    grid: Grid


def verdict(met: bool) -> str:
    return "ok" if met else "MISSED"


def peak() -> float:
    """GiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def maker(repeats: int) -> Any:
    """Time of the maker; gives its showers."""
    geometry_1 = geometry.dataset_1_photons()
    energies = np.tile(ENERGIES, 274)[:4096]
    run = partial(simulate, 0, energies, geometry_1)
    showers = run()
    rate = len(energies) / np.median([timed(run).cpu for _ in range(repeats)])
    print(f"maker: {rate:,.0f} showers per CPU s (>= 20,000 {verdict(rate >= 20_000)})", flush=True)
    return showers


def build(showers: Any, widths: tuple[int, ...]) -> Made:
    """A generator with fresh weights and the tables of some showers."""
    geometry_1 = geometry.dataset_1_photons()
    net, grid = objective.networks(geometry_1, widths, (8,)).generator, generator.grid(geometry_1)
    scale = generator.fit_scale(showers, geometry_1)
    knots, layers = len(scale.voxels.mean), len(grid.slices)
    sizes = (HEAD_LATENT, 1 + knots, LATENT, grid.size, 2 + knots + layers)
    both = lambda net, *x: (net.energies(*x[:2]), net.voxels(*x[2:]))
    init = jax.jit(partial(net.init, method=both))
    weights = init(jax.random.PRNGKey(0), *(np.zeros((1, k), np.float32) for k in sizes))["params"]
    return Made(net, jax.tree.map(np.asarray, weights), jax.tree.map(np.asarray, scale), grid)


def ours(made: Made, energy: np.ndarray) -> Callable[[], Any]:
    """Showers from a key, compiled with the weights within."""

    @jax.jit
    def showers(key: Any, energy: Any) -> Any:
        deviates = generator.latents(key, len(energy), made.grid)
        return generator.from_latents(*made, *deviates, energy)

    key = jax.random.PRNGKey(1)
    return in_blocks(lambda energy: np.asarray(showers(key, energy)), energy)


def in_blocks(function: Callable[[Any], np.ndarray], energy: Any) -> Callable[[], Any]:
    """The function of all energies, at most `BLOCK` at a time."""
    starts = range(0, len(energy), BLOCK)
    return lambda: np.concatenate([function(energy[at : at + BLOCK]) for at in starts])


class Torch:
    """The same network and the same pure functions around it, in torch."""

    def __init__(self, torch: Any, made: Made) -> None:
        self.torch, self.grid = torch, made.grid
        self.weights, self.scale = jax.tree.map(torch.tensor, (made.weights, tuple(made.scale)))
        for body in self.weights.values():
            for layer in body.values():
                layer["kernel"] = layer["kernel"].T.contiguous()  # as torch.nn.Linear holds it
        self.span, *self.tables = self.scale
        self.knots = torch.arange(float(len(self.tables[0].mean)))

    def body(self, name: str, x: Any) -> Any:
        """The layers of `nets.Body`."""
        linear, layers = self.torch.nn.functional.linear, list(self.weights[name].values())
        for layer in layers[:-1]:
            x = self.torch.nn.functional.silu(linear(x, layer["kernel"], layer["bias"]))
        return linear(x, layers[-1]["kernel"], layers[-1]["bias"])

    def share(self, total: Any, weights: Any) -> Any:
        """As `generator.share`."""
        torch, threshold = self.torch, self.grid.threshold
        total = (total * (total >= threshold))[:, None]
        weights = weights.clamp_min(1e-12)
        part = total * weights / weights.sum(1, keepdim=True)
        largest = part >= part.amax(1, keepdim=True)
        gate = ((part >= threshold) | largest) & (total > 0)
        part = torch.where(gate, weights, 0.0)
        return total * part / part.sum(1, keepdim=True).clamp_min(1e-12)

    def __call__(self, head: Any, deviates: Any, energy: Any) -> Any:
        """As `generator.from_latents`."""
        torch, grid = self.torch, self.grid
        response, layer_table, voxel_table, _ = self.tables
        place = (energy.log() - self.span[0]) / (self.span[1] - self.span[0])
        spot = (place * (len(self.knots) - 1)).clamp(0.0, len(self.knots) - 1.0)
        hats = (1 - (spot[:, None] - self.knots).abs()).clamp_min(0.0)
        about = torch.cat([2 * place[:, None] - 1, hats], 1)
        found = self.body("head", torch.cat([head, about], 1))
        back = lambda table, x: hats @ table.mean + hats @ table.width * x
        white = lambda table, x: (x - hats @ table.mean) / (hats @ table.width)
        total = back(response, found[:, :1])[:, 0].clamp_min(0.0) * energy
        layers = self.share(total, back(layer_table, found[:, 1:]).clamp(0.0, 30.0).expm1())
        seen = white(response, layers.sum(1, keepdim=True) / energy[:, None])
        seen = [about, seen, white(layer_table, (layers / grid.threshold).log1p())]
        deep, noise = deviates[:, :LATENT], deviates[:, LATENT:]
        middle, width, skew = self.body("body", torch.cat([deep, *seen], 1)).chunk(3, 1)
        logs = middle + (0.5 + width) * noise + skew * (noise * noise - 1)
        logs = back(voxel_table, logs)
        faint = generator.FAINT * (logs.clamp_max(0.0) / generator.FADE).exp()
        amount = logs.clamp(0.0, 30.0).expm1() + faint
        parts = [self.share(layers[:, k], amount[:, s]) for k, s in enumerate(grid.slices)]
        return torch.cat(parts, 1)


def theirs(peer: Torch, energy: np.ndarray) -> Callable[[], Any]:
    torch, size = peer.torch, LATENT + peer.grid.size

    def run(given: Any) -> Any:
        rows = len(given)
        with torch.inference_mode():
            return peer(torch.randn(rows, HEAD_LATENT), torch.randn(rows, size), given).numpy()

    return in_blocks(run, torch.tensor(energy))


def difference(made: Made, peer: Torch) -> tuple[float, int]:
    """Largest one from the same deviates, relative to the largest deposit of each shower.

    Showers apart, which come second, where rounding took a voxel across the threshold.
    """
    rng = np.random.default_rng(0)
    sizes = HEAD_LATENT, LATENT + made.grid.size
    given = [rng.normal(size=(450, k)).astype(np.float32) for k in sizes]
    given.append(np.tile(ENERGIES, 30).astype(np.float32))
    mine = np.asarray(jax.jit(partial(generator.from_latents, *made))(*given))
    found = peer(*map(peer.torch.tensor, given)).numpy()
    across = ((found > 0) != (mine > 0)).any(axis=1)
    apart = np.abs(found - mine).max(axis=1) / mine.max(axis=1)
    return float(apart[~across].max()), int(across.sum())


def onnx(made: Made) -> Callable[[np.ndarray], Callable[[], Any]]:
    """The exported file, run by onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    function = exports.single_input(*made, LARGEST)
    model = export.onnx(function, exports.inputs(made.grid), "energies")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rng, size = np.random.default_rng(0), exports.latent_size(made.grid)

    def run(energy: np.ndarray) -> Any:
        last = (energy / np.float32(LARGEST))[:, None]
        x = np.hstack([rng.standard_normal((len(energy), size), np.float32), last])
        return session.run(None, {"x": x})[0] * energy[:, None]

    return partial(in_blocks, run)


def row(made: Made, peer: Torch | None, file: Any, batch: int, quick: bool) -> None:
    """One batch size: time of a shower by each program."""
    energy = np.resize(ENERGIES, batch).astype(np.float32)
    mine, calls = ours(made, energy), max((200 if quick else 2000) // batch, 1)
    many = lambda run: lambda: [run() for _ in range(calls)]
    showers, repeats = batch * calls, 3 if quick else 7
    pair = paired(many(mine), many(theirs(peer, energy) if peer else mine), repeats, 2)
    ms, peer_ms = (1e3 * seconds.cpu / showers for seconds in (pair.ours, pair.peer))
    met = verdict(ms <= TARGETS[batch])
    torch = f"{peer_ms:9.4f}{pair.ratio:7.2f}x" if peer else f"{'-':>9}{'-':>8}"
    other = f"{'-':>13}"
    if file:
        run = many(file(energy))
        run()
        other = f"{1e3 * np.median([timed(run).cpu for _ in range(repeats)]) / showers:13.4f}"
    geant4 = f"{1e3 * GEANT4 / ms:12,.0f}x"
    print(f"{batch:>8,}{ms:9.4f} (<= {TARGETS[batch]:g} {met}){torch}{other}{geant4}", flush=True)


def optional(name: str, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except ImportError:
        print(f"{name}: not installed, not compared")
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--widths", nargs="+", type=int, default=[256, 256], help="hidden layers")
    given = parser.parse_args()
    made = build(maker(3 if given.quick else 7), tuple(given.widths))
    ours(made, np.resize(ENERGIES, 10_000).astype(np.float32))()
    print(f"10,000 showers made: peak memory of the process {peak():.2f} GiB", flush=True)

    def torch_peer() -> Torch:
        import torch

        torch.set_num_threads(1)
        return Torch(torch, made)

    peer, file = optional("torch", torch_peer), optional("onnxruntime", lambda: onnx(made))
    if peer:
        found, across = difference(made, peer)
        print(f"largest difference from torch, of a shower's largest deposit: {found:.1e}", end="")
        print(f"; voxels across the threshold in {across} of 450 showers")
        if found > 1e-4 or across > 4:
            raise SystemExit("the two nets differ; nothing is timed")
    header = f"{'batch':>8}{'ours':>9}{'':<18}{'torch':>9}{'ratio':>8}{'onnxruntime':>13}"
    print(f"CPU ms per shower\n{header}{'Geant4':>13}")
    for batch in TARGETS:
        row(made, peer, file, batch, given.quick)


if __name__ == "__main__":
    main()
