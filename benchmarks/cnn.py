"""Networks of the neutrino domain beside torch: one thread, CPU time, paired runs, batch 64.

    python benchmarks/cnn.py [--quick]

torch gets the same nets with our weights copied over; the largest difference of the logits is
printed first. Forward: logits without dropout. Step: cross entropy, gradient, one Adam update.
Maps are random with 60 lit pixels, which costs dense nets what events cost; the sparse net sees 64
tokens per event, half of them padding. The last row sets torch's GoogLeNet beside our sparse step.
torch runs eagerly with channels_last and its own local_response_norm; one written by hand from five
shifted sums would save it a fifth of GoogLeNet's forward time. Without torch there is
nothing to compare: the script says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from timing import paired, pin_threads

pin_threads()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from physml.neutrino import nets  # noqa: E402

try:
    import torch
    import torch.nn.functional as tf
except ImportError:
    sys.exit("torch: not installed, nothing to compare with; pip install torch")

BATCH, CLASSES, TOKENS = 64, 5, 64
Weights = Mapping[str, Any]


class Route(NamedTuple):
    """One network ready to run: both wait for their result."""

    forward: Callable[[], Any]
    step: Callable[[], object]


def maps(rng: np.random.Generator) -> np.ndarray:
    """Two-view maps with 60 lit pixels each."""
    pixels = np.zeros((BATCH, 2 * 100 * 80), np.uint8)
    for row in pixels:
        row[rng.choice(row.size, 60, replace=False)] = rng.integers(1, 256, 60)
    return pixels.reshape(BATCH, 2, 100, 80)


def sparse(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, places and masks: 32 of 64 tokens hold a few lit pixels."""
    lit = rng.random((BATCH, TOKENS, 16)) < 0.15
    tokens = (lit * rng.integers(1, 256, lit.shape)).astype(np.uint8)
    place = np.stack([rng.permutation(1000)[:TOKENS] for _ in range(BATCH)]).astype(np.int32)
    return tokens, place, np.broadcast_to(np.arange(TOKENS) < TOKENS // 2, (BATCH, TOKENS))


def ours(net: Any, inputs: tuple[np.ndarray, ...], labels: np.ndarray) -> tuple[Route, Weights]:
    """Our route, compiled, and its weights."""
    values = jax.device_put(inputs)
    init = jax.jit(lambda key: net.init(key, *values, train=False))
    # Biases start at 0; some other values make the comparison of outputs mean more.
    weights = jax.tree.map(lambda w: w + 0.01, init(jax.random.PRNGKey(0)))
    adam = optax.adam(1e-4)
    forward = jax.jit(lambda weights, *values: net.apply(weights, *values, train=False).logits)

    def loss(weights: Weights, key: jax.Array, *values: jax.Array) -> jax.Array:
        logits = net.apply(weights, *values, train=True, rngs={"dropout": key}).logits
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    @jax.jit
    def step(weights: Weights, state: Any, key: jax.Array, *values: jax.Array) -> Any:
        updates, state = adam.update(jax.grad(loss)(weights, key, *values), state)
        return optax.apply_updates(weights, updates), state

    first = adam.init(weights), jax.random.PRNGKey(1)
    return Route(
        lambda: np.asarray(forward(weights, *values)),
        lambda: jax.block_until_ready(step(weights, *first, *values)),
    ), weights["params"]


class Torch:
    """Weights of ours as torch tensors, by their path, and the layers that both nets share."""

    def __init__(self, weights: Weights) -> None:
        flat, _ = jax.tree_util.tree_flatten_with_path(weights)
        self.tensors = {}
        for path, leaf in flat:
            value = torch.tensor(np.asarray(leaf))
            if value.ndim == 4:
                value = value.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
            elif value.ndim == 2:
                value = value.T.contiguous()
            elif path[-1].key == "depthwise":
                value = value.permute(2, 0, 1)[:, None].contiguous()
            name = "/".join(key.key for key in path)
            self.tensors[name] = torch.nn.Parameter(value)

    def conv(self, name: str, x: Any, stride: int = 1) -> Any:
        """Convolution with bias and ReLU; `product` are 1x1 convolutions stored as matrices."""
        if (kernel := self.tensors.get(f"{name}/kernel")) is None:
            name = f"{name}/product"
            kernel = self.tensors[f"{name}/kernel"][:, :, None, None]
        bias = self.tensors[f"{name}/bias"]
        return torch.relu_(tf.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2))

    def dense(self, name: str, x: Any) -> Any:
        """Linear layer on the last axis."""
        return tf.linear(x, self.tensors[f"{name}/kernel"], self.tensors.get(f"{name}/bias"))


def views(pixels: Any) -> list[Any]:
    """Brightness of each view as an image of one channel."""
    bright = (torch.sqrt(1.0 + pixels.float()) - 1.0) / 15.0
    return [bright[:, v : v + 1].contiguous(memory_format=torch.channels_last) for v in range(2)]


def pool(x: Any, stride: int) -> Any:
    """3x3 windows that start where XLA's "SAME" padding puts them; values are >= 0."""
    sizes = [-(-size // stride) for size in x.shape[2:]]
    gaps = [(n - 1) * stride + 3 - size for n, size in zip(sizes, x.shape[2:], strict=True)]
    if any(gap % 2 for gap in gaps):
        pads = [p for gap in gaps[::-1] for p in (gap // 2, gap - gap // 2)]
        return tf.max_pool2d(tf.pad(x, pads), 3, stride)
    return tf.max_pool2d(x, 3, stride, [gap // 2 for gap in gaps])


def inception(net: Torch, name: str, x: Any, channels: tuple[int, ...]) -> Any:
    one, reduce3, _, reduce5, _, _ = channels
    narrow, to3, to5 = net.conv(f"{name}/reduce", x).split((one, reduce3, reduce5), 1)
    wide = net.conv(f"{name}/three", to3), net.conv(f"{name}/five", to5)
    return torch.cat((narrow, *wide, net.conv(f"{name}/pool", pool(x, 1))), 1)


def googlenet(net: Torch, pixels: Any, train: bool) -> Any:
    """The layers of `nets.GoogLeNet`."""
    ends = []
    for v, x in enumerate(views(pixels)):
        x = tf.local_response_norm(pool(net.conv(f"view{v}/stem", x, 2), 2), 5)
        x = net.conv(f"view{v}/wide", net.conv(f"view{v}/narrow", x))
        x = pool(tf.local_response_norm(x, 5), 2)
        x = inception(net, f"view{v}/3a", x, nets.INCEPTION["3a"])
        x = pool(inception(net, f"view{v}/3b", x, nets.INCEPTION["3b"]), 2)
        ends.append(inception(net, f"view{v}/4a", x, nets.INCEPTION["4a"]))
    x = inception(net, "merged", torch.cat(ends, 1), nets.INCEPTION["merged"])
    return net.dense("head/logits", tf.dropout(x.mean((2, 3)), 0.4, train))


def mobile_stages(net: Torch, x: Any, stages: tuple[tuple[int, ...], ...], prefix: str) -> Any:
    for channels, expansion, stride, count in stages:
        for place in range(count):
            name = f"{prefix}block{channels}_{place}"
            step = stride if place == 0 else 1
            y = net.conv(f"{name}/widen", x) if expansion > 1 else x
            kernel, bias = net.tensors[f"{name}/depthwise"], net.tensors[f"{name}/bias"]
            y = torch.relu_(tf.conv2d(y, kernel, bias, step, 1, 1, y.shape[1]))
            narrow = net.tensors[f"{name}/narrow/kernel"][:, :, None, None]
            y = tf.conv2d(y, narrow, net.tensors[f"{name}/narrow/bias"])
            x = x + y * net.tensors[f"{name}/gain"] if f"{name}/gain" in net.tensors else y
    return x


def mobilenet(net: Torch, pixels: Any, train: bool) -> Any:
    """The layers of `nets.MobileNetV2`."""
    ends = []
    for v, x in enumerate(views(pixels)):
        x = net.conv(f"view{v}/stem", x, 2)
        ends.append(mobile_stages(net, x, nets.MOBILE_VIEW, f"view{v}/"))
    x = mobile_stages(net, torch.cat(ends, 1), nets.MOBILE_MERGED, "")
    x = tf.dropout(net.conv("last", x).mean((2, 3)), 0.4, train)
    return net.dense("head/logits", tf.dropout(torch.relu(net.dense("hidden", x)), 0.4, train))


def transformer(net: Torch, tokens: Any, place: Any, mask: Any, train: bool) -> Any:
    """The layers of `nets.SparsePatchTransformer`."""
    bright = (torch.sqrt(1.0 + tokens.float()) - 1.0) / 15.0
    x = net.dense("embed", torch.cat((bright, (tokens > 0).float()), -1))
    view, plane, cell = (net.tensors[name].T for name in ("view", "plane", "cell"))
    table = view[:, None, None] + plane[:, None] + cell
    x = x + tf.embedding(place, table.reshape(-1, x.shape[-1]))
    for layer in range(3):
        x = transformer_block(net, f"block{layer}", x, mask, train)
    x, shown = norm(net, "LayerNorm_0", x), mask[..., None]
    total, count = (x * shown).sum(1), shown.sum(1)
    largest = x.masked_fill(~shown, -1e9).amax(1)
    x = torch.cat((total / count, largest, total / 64.0), -1)
    x = tf.gelu(net.dense("pooled/Dense_0", x), approximate="tanh")
    return net.dense("head/logits", tf.dropout(x, 0.1, train))


def norm(net: Torch, name: str, x: Any) -> Any:
    scale, bias = net.tensors[f"{name}/scale"], net.tensors[f"{name}/bias"]
    return tf.layer_norm(x, x.shape[-1:], scale, bias, 1e-6)


def transformer_block(net: Torch, name: str, x: Any, mask: Any, train: bool) -> Any:
    n, k, d = x.shape
    joint = net.dense(f"{name}/Attention_0/joint", norm(net, f"{name}/LayerNorm_0", x))
    query, key, value = joint.reshape(n, k, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
    y = tf.scaled_dot_product_attention(query, key, value, mask[:, None, None, :])
    y = net.dense(f"{name}/Attention_0/mixed", y.transpose(1, 2).reshape(n, k, d))
    x = x + tf.dropout(y, 0.1, train)
    y = net.dense(f"{name}/MLP_0/Dense_0", norm(net, f"{name}/LayerNorm_1", x))
    y = net.dense(f"{name}/MLP_0/Dense_1", tf.gelu(y, approximate="tanh"))
    return x + tf.dropout(y, 0.1, train)


def theirs(net: Torch, apply: Callable[..., Any], inputs: Any, labels: np.ndarray) -> Route:
    """Route of torch on the same weights."""
    values, target = [torch.tensor(a) for a in inputs], torch.tensor(labels)
    adam = torch.optim.Adam(net.tensors.values(), 1e-4)

    def forward() -> Any:
        with torch.no_grad():
            return apply(net, *values, False).numpy()

    def step() -> None:
        adam.zero_grad()
        tf.cross_entropy(apply(net, *values, True), target).backward()
        adam.step()

    return Route(forward, step)


def compare(name: str, mine: Callable, peer: Callable, repeats: int, target: float | None) -> None:
    """Print one row; the ratio is torch / ours, above 1 where ours is faster."""
    pair = paired(mine, peer, repeats)
    times = f"{1e3 * pair.ours.cpu / BATCH:9.2f}{1e3 * pair.peer.cpu / BATCH:9.2f}"
    mark = "" if target is None else f" (>= {target:g}x {verdict(pair.ratio >= target)})"
    print(f"{name:<34}{times}{pair.ratio:7.2f}x{mark}", flush=True)


def verdict(met: bool) -> str:
    return "ok" if met else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 repeats instead of 9")
    repeats = 3 if parser.parse_args().quick else 9
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    labels, images = rng.integers(0, CLASSES, BATCH), (maps(rng),)
    cases = {
        "GoogLeNet": (nets.GoogLeNet(CLASSES), googlenet, images),
        "MobileNetV2 alpha 0.25": (nets.MobileNetV2(CLASSES, 0.25), mobilenet, images),
        "sparse patches, 64 tokens": (
            nets.SparsePatchTransformer(CLASSES),
            transformer,
            sparse(rng),
        ),
    }
    routes = {}
    for name, (net, apply, inputs) in cases.items():
        mine, weights = ours(net, inputs, labels)
        peer = theirs(Torch(weights), apply, inputs, labels)
        ours_out, peer_out = mine.forward(), peer.forward()
        difference = np.abs(ours_out - peer_out).max() / np.abs(peer_out).max()
        print(f"{name}: largest difference of logits, relative: {difference:.1e}", flush=True)
        if difference > 1e-4:
            sys.exit(f"{name}: the two nets differ; nothing is timed")
        routes[name] = mine, peer
    print(f"{'CPU ms per event':<34}{'ours':>9}{'torch':>9}{'ratio':>8}")
    for name, (mine, peer) in routes.items():
        target = 1 / 1.1 if name == "GoogLeNet" else None
        compare(f"{name}, forward", mine.forward, peer.forward, repeats, target)
        compare(f"{name}, step", mine.step, peer.step, repeats, None)
    dense, light = routes["GoogLeNet"][1], routes["sparse patches, 64 tokens"][0]
    compare("sparse beside torch GoogLeNet, step", light.step, dense.step, repeats, 8.0)


if __name__ == "__main__":
    main()
