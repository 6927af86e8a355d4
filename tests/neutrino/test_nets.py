"""Networks against counts, other formulas, torch, and the symmetries they promise."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from physml.neutrino import nets

CLASSES = 5
QUICK = {"xla_backend_optimization_level": 0}  # compiling takes longer than running here


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


def random_maps(rng, n=2, shape=(2, 20, 16)):
    """Small maps: the nets take any size, and smaller ones are quick to test."""
    lit = rng.random((n, *shape)) < 0.1
    return (lit * rng.integers(1, 256, lit.shape)).astype(np.uint8)


def random_tokens(rng, n=3, k=12):
    """Sparse inputs; event i has k - 4 i tokens, the rest is padding with rubbish in it."""
    tokens = rng.integers(0, 256, (n, k, 16)).astype(np.uint8)
    place = rng.integers(0, math.prod(nets.PLACES), (n, k)).astype(np.int32)
    mask = np.arange(k) < (k - 4 * np.arange(n))[:, None]
    return tokens, place, mask


def initial(net, *inputs, **options):
    """Weights of the right shapes, gain 2 and no zeros: quicker than compiling `init`."""
    rng = np.random.default_rng(1)
    key = jax.random.PRNGKey(0)

    def draw(leaf):
        gain = (2 / math.prod(leaf.shape[:-1])) ** 0.5 if leaf.ndim > 1 else 0.03
        return (gain * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree.map(draw, jax.eval_shape(lambda: net.init(key, *inputs, **options)))


@functools.cache
def compiled(net, train):
    """(weights, key, *inputs) -> output, one compilation for all tests of a net."""

    def run(weights, key, *inputs):
        return net.apply(weights, *inputs, train=train, rngs={"dropout": key})

    return jax.jit(run, compiler_options=QUICK)


def logits(net, weights, *inputs, train=False, seed=0):
    return np.asarray(compiled(net, train)(weights, jax.random.PRNGKey(seed), *inputs).logits)


def weight_count(weights):
    return sum(leaf.size for leaf in jax.tree.leaves(weights))


def multiply_adds(jaxpr):
    """Products in the convolutions and matrix products of a program."""
    total = 0
    for equation in jaxpr.eqns:
        out = math.prod(equation.outvars[0].aval.shape)
        shapes = [v.aval.shape for v in equation.invars]
        if equation.primitive.name == "conv_general_dilated":
            total += out * math.prod(shapes[1][:-1])
        elif equation.primitive.name == "dot_general":
            ((axes, _), _) = equation.params["dimension_numbers"]
            total += out * math.prod(shapes[0][axis] for axis in axes)
        for inner in jaxprs_in_params(equation.params):
            total += multiply_adds(inner)
    return total


@pytest.fixture(scope="module")
def dense_nets(rng):
    """Name -> net, weights, maps; two events each."""
    maps = random_maps(rng)
    cases = {"googlenet": nets.GoogLeNet(CLASSES), "mobilenet": nets.MobileNetV2(CLASSES)}
    return {name: (net, initial(net, maps, train=False), maps) for name, net in cases.items()}


@pytest.fixture(scope="module")
def sparse_net(rng):
    net = nets.SparsePatchTransformer(CLASSES, width=32, layers=2)
    inputs = random_tokens(rng)
    return net, initial(net, *inputs, train=False), inputs


def test_googlenet_has_the_published_size():
    net, maps = nets.GoogLeNet(CLASSES), jax.ShapeDtypeStruct((1, 2, 100, 80), jnp.uint8)
    weights = jax.eval_shape(lambda m: net.init(jax.random.PRNGKey(0), m, False), maps)
    assert weight_count(weights) == 3_251_717  # sum over the table of channels, by hand
    kernels = [w for w in jax.tree.leaves(weights["params"]) if w.ndim > 1]
    assert round(sum(k.size for k in kernels) / 1e6, 2) == 3.25
    run = jax.make_jaxpr(lambda w, m: net.apply(w, m, False))(weights, maps)
    assert round(multiply_adds(run.jaxpr) / 1e6) == 337


@pytest.mark.parametrize("alpha, weights_k", [(0.25, 495), (1.0, 3600)])
def test_mobilenet_has_the_size_of_its_table(alpha, weights_k):
    net, maps = nets.MobileNetV2(CLASSES, alpha), jax.ShapeDtypeStruct((1, 2, 100, 80), jnp.uint8)
    weights = jax.eval_shape(lambda m: net.init(jax.random.PRNGKey(0), m, False), maps)
    assert weight_count(weights) / 1e3 == pytest.approx(weights_k, rel=0.01)


@pytest.mark.parametrize("name, width", [("googlenet", 832), ("mobilenet", 1024)])
def test_outputs_have_a_row_per_event(dense_nets, name, width):
    net, weights, maps = dense_nets[name]
    out = compiled(net, False)(weights, jax.random.PRNGKey(0), maps)
    assert out.logits.shape == (2, CLASSES) and out.embedding.shape == (2, width)
    assert np.isfinite(out.logits).all() and np.ptp(out.logits) > 1e-6


def test_brightness_keeps_order_and_ends():
    levels = nets.brightness(np.arange(256, dtype=np.uint8), jnp.float32)
    assert levels[0] == 0 and levels[255] == pytest.approx(1, abs=1e-6)
    assert (np.diff(levels) > 0).all()


def test_blank_pixels_have_a_finite_slope():
    """For saliency maps: a plain square root would give infinities."""
    slope = jax.grad(lambda v: nets.brightness(v, jnp.float32))
    assert [slope(0.0), slope(3.0)] == pytest.approx([1 / 30, 1 / 60], rel=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_is_the_grouped_convolution(rng, stride):
    x = rng.normal(size=(2, 9, 8, 6)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 6)).astype(np.float32)

    def grouped(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel[:, :, None],
            (stride, stride),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=6,
        )

    def shifted(x, kernel):
        return nets.depthwise(x, kernel, stride)

    np.testing.assert_allclose(shifted(x, kernel), grouped(x, kernel), atol=1e-5)
    for mine, other in zip(slopes(shifted, x, kernel), slopes(grouped, x, kernel), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def slopes(function, *arguments):
    """Gradients of the sum of squares with respect to all arguments."""
    places = tuple(range(len(arguments)))
    slope = jax.grad(lambda *a: jnp.sum(function(*a) ** 2), argnums=places)
    return jax.jit(slope, compiler_options=QUICK)(*arguments)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(50, 40), (25, 20), (13, 10), (7, 5)])
def test_pooling_takes_the_largest_of_each_window(rng, shape, stride):
    x = np.abs(rng.normal(size=(1, *shape, 2))).astype(np.float32)
    found = np.asarray(nets.max_pool(x, stride))
    starts = [
        np.arange(n) * stride - ((n - 1) * stride + 3 - size) // 2
        for n, size in zip((-(-s // stride) for s in shape), shape, strict=True)
    ]
    expected = [
        [x[:, max(i, 0) : i + 3, max(j, 0) : j + 3].max(axis=(1, 2)) for j in starts[1]]
        for i in starts[0]
    ]
    np.testing.assert_array_equal(found, np.moveaxis(np.array(expected), 2, 0))


def test_pooling_sends_the_gradient_to_the_largest(rng):
    x = rng.permutation(2 * 7 * 6 * 3).reshape(2, 7, 6, 3).astype(np.float32)
    window = (1, 3, 3, 1), (1, 2, 2, 1)

    def plain(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window, "SAME")

    (mine,), (other,) = slopes(lambda x: nets.max_pool(x, 2), x), slopes(plain, x)
    np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_local_response_norm_is_the_sum_over_neighbours(rng):
    x = (30 * rng.normal(size=(2, 3, 4, 11))).astype(np.float32)
    padded = np.pad(x.astype(float) ** 2, ((0, 0), (0, 0), (0, 0), (2, 2)))
    total = sum(padded[..., i : i + 11] for i in range(5))
    expected = x / (1 + 1e-4 / 5 * total) ** 0.75
    np.testing.assert_allclose(nets.local_response_norm(x), expected, rtol=2e-6)


def test_inception_agrees_with_torch(rng):
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    channels = (4, 3, 5, 2, 6, 7)
    block = nets.Inception(channels)
    x = np.abs(rng.normal(size=(2, 7, 5, 8))).astype(np.float32)
    weights = initial(block, x)

    def layer(name, x, start=0, stop=None):
        held = weights["params"][name].get("product", weights["params"][name])
        kernel = np.asarray(held["kernel"])
        kernel = kernel[None, None] if kernel.ndim == 2 else kernel
        kernel = torch.tensor(kernel[..., start:stop]).permute(3, 2, 0, 1)
        bias = torch.tensor(np.asarray(held["bias"])[start:stop])
        return torch.relu(f.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2))

    image = torch.tensor(x).permute(0, 3, 1, 2)
    one, three = channels[0], channels[0] + channels[1]
    ways = [
        layer("reduce", image, 0, one),
        layer("three", layer("reduce", image, one, three)),
        layer("five", layer("reduce", image, three)),
        layer("pool", f.max_pool2d(image, 3, 1, 1)),
    ]
    expected = torch.cat(ways, 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(block.apply(weights, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["googlenet", "mobilenet"])
def test_views_are_not_interchangeable(dense_nets, name):
    net, weights, maps = dense_nets[name]
    before, after = logits(net, weights, maps), logits(net, weights, maps[:, ::-1])
    assert np.abs(before - after).max() > 1e-3 * np.abs(before).max()


def test_sparse_net_tells_views_apart(sparse_net):
    net, weights, (tokens, place, mask) = sparse_net
    other = (place + math.prod(nets.PLACES) // 2) % math.prod(nets.PLACES)
    before, after = (
        logits(net, weights, tokens, place, mask),
        logits(net, weights, tokens, other, mask),
    )
    assert np.abs(before - after).max() > 1e-3


@pytest.mark.parametrize("padding", [1, 52])
def test_padding_does_not_change_sparse_results(sparse_net, rng, padding):
    net, weights, inputs = sparse_net
    n = len(inputs[0])
    rubbish = (
        rng.integers(0, 256, (n, padding, 16)).astype(np.uint8),
        rng.integers(0, 1000, (n, padding)).astype(np.int32),
        np.zeros((n, padding), bool),
    )
    longer = [np.concatenate(pair, axis=1) for pair in zip(inputs, rubbish, strict=True)]
    expected = logits(net, weights, *inputs)
    np.testing.assert_allclose(logits(net, weights, *longer), expected, rtol=2e-5, atol=2e-6)


def test_padding_does_not_change_dropout(sparse_net):
    net, weights, inputs = sparse_net
    longer = [np.concatenate([a, np.zeros_like(a)], axis=1) for a in inputs]
    short, long = (logits(net, weights, *x, train=True) for x in (inputs, longer))
    np.testing.assert_allclose(short, long, rtol=2e-5, atol=2e-6)


def test_order_of_hits_does_not_change_sparse_results(sparse_net, rng):
    net, weights, inputs = sparse_net
    order = rng.permutation(inputs[0].shape[1])
    mixed = [a[:, order] for a in inputs]
    expected = logits(net, weights, *inputs)
    np.testing.assert_allclose(logits(net, weights, *mixed), expected, rtol=2e-5, atol=2e-6)


def test_place_and_brightness_of_a_patch_matter(sparse_net):
    net, weights, (tokens, place, mask) = sparse_net
    expected = logits(net, weights, tokens, place, mask)
    moved, brighter = place.copy(), tokens.copy()
    moved[:, 0] = (moved[:, 0] + 21) % 1000
    brighter[:, 0] = 255 - brighter[:, 0]
    assert np.abs(logits(net, weights, tokens, moved, mask) - expected).max() > 1e-3
    assert np.abs(logits(net, weights, brighter, place, mask) - expected).max() > 1e-3


def loss_slopes(net, weights, *inputs):
    """Loss and its gradient in training; a new function per call, so tests do not share jit."""

    def loss(weights):
        rngs = {"dropout": jax.random.PRNGKey(1)}
        out = net.apply(weights, *inputs, train=True, rngs=rngs)
        return -jnp.mean(jax.nn.log_softmax(out.logits)[:, 0])

    return jax.jit(jax.value_and_grad(loss), compiler_options=QUICK)(weights)


def assert_finite(tree):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", ["googlenet", "mobilenet"])
def test_gradients_are_finite_on_blank_and_saturated_maps(dense_nets, monkeypatch, name):
    monkeypatch.setattr(nets, "MOBILE_VIEW", nets.MOBILE_VIEW[:1])  # fewer blocks of each kind
    monkeypatch.setattr(nets, "MOBILE_MERGED", ((32, 6, 2, 2),))  # compile sooner
    net, _, maps = dense_nets[name]
    weights = initial(net, maps, train=False)
    extreme = np.stack([np.zeros_like(maps[0]), np.full_like(maps[0], 255)])
    value, slope = loss_slopes(net, weights, extreme)
    assert_finite((value, slope))
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(slope)) > 0


def test_sparse_gradients_are_finite_without_hits_and_saturated(sparse_net):
    net, weights, (tokens, place, mask) = sparse_net
    mask = mask.copy()
    mask[0] = False
    full = np.full_like(tokens, 255)
    value, slope = loss_slopes(net, weights, full, place, mask)
    assert_finite((value, slope, logits(net, weights, full, place, mask)))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slope["params"]["block0"]))


@pytest.mark.parametrize("name", ["googlenet", "sparse"])
def test_bfloat16_is_near_float32(dense_nets, sparse_net, name):
    net, weights, *inputs = dense_nets[name] if name in dense_nets else sparse_net
    inputs = inputs[0] if isinstance(inputs[0], tuple) else inputs
    half = dataclasses.replace(net, dtype=jnp.bfloat16)
    expected, found = logits(net, weights, *inputs), logits(half, weights, *inputs)
    assert found.dtype == np.float32 and not np.array_equal(found, expected)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    shapes = jax.eval_shape(lambda: half.init(jax.random.PRNGKey(0), *inputs, train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype(np.float32)}


def test_repeated_calls_compile_once(sparse_net, rng):
    net, weights, inputs = sparse_net
    traces = []

    @jax.jit
    def run(weights, *inputs):
        traces.append(1)
        return net.apply(weights, *inputs, train=False)

    for _ in range(3):
        run(weights, *random_tokens(rng))
    assert len(traces) == 1


def test_dropout_acts_in_training_only(sparse_net):
    net, weights, inputs = sparse_net
    first, same, other = (
        logits(net, weights, *inputs, train=True, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, same) and not np.array_equal(first, other)
