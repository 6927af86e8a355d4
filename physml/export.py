"""Pure functions as files that others run: ONNX, and StableHLO through `jax.export`.

ONNX is written from the jaxpr of the function, operation by operation; what a user's program needs
to run it is onnxruntime alone. Sizes may be symbols. Operations beyond the table are refused by
name. Integers are int64 in ONNX, as indices are there. The extra `export` installs what is needed.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core
import numpy as np
from jax import export as jax_export

from physml.errors import ConfigError

OPSET, IR_VERSION = 18, 8
"""Both of ONNX 1.13 of December 2022, so that onnxruntime 1.14 and newer read the file."""

Arguments = Mapping[str, jax.ShapeDtypeStruct]
"""Name -> shape and type of each argument, in the order of the function."""

Value = str | np.ndarray
"""In the making of a file: the name of a tensor, or an array that is known already."""


def arguments(**shapes: tuple[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Arguments by name, each a shape such as "hits, 12" and a type; words are symbols of sizes."""
    scope = jax_export.SymbolicScope()
    return {
        name: jax.ShapeDtypeStruct(jax_export.symbolic_shape(shape, scope=scope), dtype)
        for name, (shape, dtype) in shapes.items()
    }


def stablehlo(function: Callable[..., Any], inputs: Arguments) -> bytes:
    """The function in StableHLO, for CPUs and NVIDIA GPUs, as `jax.export.deserialize` reads it."""
    exported = jax_export.export(jax.jit(function), platforms=("cpu", "cuda"))
    return bytes(exported(*inputs.values()).serialize())


def run_stablehlo(model: bytes, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """What a function in StableHLO gives."""
    return np.asarray(jax_export.deserialize(bytearray(model)).call(*values.values()))


def run_onnx(model: bytes, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """What a function in ONNX gives, by onnxruntime on the CPU.

    Raises:
        ConfigError: onnxruntime is not installed.
    """
    session = _needs("onnxruntime").InferenceSession(model, providers=["CPUExecutionProvider"])
    fed = {name: value.astype(_type(value.dtype)) for name, value in values.items()}
    return np.asarray(session.run(None, fed)[0])


def onnx(function: Callable[..., Any], inputs: Arguments, output: str) -> bytes:
    """A function of one result in ONNX.

    Args:
        function: of arrays; its weights are part of it.
        inputs: see `arguments`; 32-bit floats, integers or booleans.
        output: name of the result.

    Raises:
        ConfigError: the package onnx is not installed, or the function holds an operation, type
            or size that cannot be written; names it.
    """
    library = _needs("onnx")
    closed = jax.make_jaxpr(function)(*inputs.values())
    graph = _Graph({}, {}, [], _sizes(inputs))
    (result,) = _run(graph, closed.jaxpr, [np.asarray(c) for c in closed.consts], list(inputs))
    _add(graph, "Identity", [result], name=output)
    (made,) = closed.out_avals
    helper, numpy_helper = library.helper, library.numpy_helper
    weights = [numpy_helper.from_array(array, name) for name, array in graph.weights.values()]
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(op, ins, [out], **attributes)
                for op, ins, out, attributes in graph.nodes
            ],
            getattr(function, "__name__", "function"),
            [_described(helper, name, spec) for name, spec in inputs.items()],
            [_described(helper, output, made)],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="physml",
    )
    library.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


class _Graph(NamedTuple):
    """A file in the making. The first two find what was made before, so that it is made once."""

    made: dict[Any, str]  # operation with its inputs -> name of its result
    weights: dict[Any, tuple[str, np.ndarray]]  # bytes of an array -> its name, and it
    nodes: list[tuple[str, list[str], str, dict[str, Any]]]
    sizes: dict[str, tuple[str, int]]  # symbol -> input and axis that have this size


def _needs(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(package, "is not installed", "pip install 'physml[export]'") from error


def _sizes(inputs: Arguments) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    for name, spec in inputs.items():
        for axis, size in enumerate(spec.shape):
            if not isinstance(size, int):
                found.setdefault(str(size), (name, axis))
    return found


def _type(dtype: Any) -> Any:
    """The type in ONNX of a type in JAX."""
    dtype = np.dtype(dtype)
    if dtype.kind == "i":
        return np.dtype(np.int64)
    if dtype not in (np.float32, np.bool_):
        remedy = "make a network of float32 for the file"
        raise ConfigError("ONNX", f"is not written with type {dtype}", remedy)
    return dtype


def _described(helper: Any, name: str, spec: Any) -> Any:
    shape = [size if isinstance(size, int) else str(size) for size in spec.shape]
    kind = helper.np_dtype_to_tensor_dtype(_type(spec.dtype))
    return helper.make_tensor_value_info(name, kind, shape)


def _named(graph: _Graph, value: Value) -> str:
    """The name of a tensor; an array becomes one of the weights of the file."""
    if isinstance(value, str):
        return value
    array = np.asarray(value, _type(value.dtype))
    key = array.shape, array.dtype.str, array.tobytes()
    return graph.weights.setdefault(key, (f"weight{len(graph.weights)}", array))[0]


def _add(
    graph: _Graph, op: str, values: Sequence[Value], name: str | None = None, **attributes: Any
) -> str:
    """Add an operation, unless it stands there already, and return the name of its result."""
    inputs = [_named(graph, value) for value in values]
    key = op, *inputs, str(sorted(attributes.items())), name
    if key not in graph.made:
        graph.made[key] = name or f"{op.lower()}{len(graph.made)}"
        graph.nodes.append((op, inputs, graph.made[key], attributes))
    return graph.made[key]


def _shape(graph: _Graph, shape: Sequence[Any]) -> Value:
    """A shape as a tensor."""
    if all(isinstance(size, int) for size in shape):
        return np.array(shape, np.int64)
    parts = [_shape(graph, [s]) if isinstance(s, int) else _size(graph, s) for s in shape]
    return _add(graph, "Concat", parts, axis=0)


def _size(graph: _Graph, symbol: Any) -> str:
    """The size that a symbol stands for, as a tensor of one number."""
    if str(symbol) not in graph.sizes:
        raise ConfigError("ONNX", f"is not written with size {symbol}", "use sizes of the inputs")
    name, axis = graph.sizes[str(symbol)]
    return _add(graph, "Shape", [name], start=axis, end=axis + 1)


def _run(
    graph: _Graph, jaxpr: Any, consts: Sequence[Value], values: Sequence[Value]
) -> list[Value]:
    """Write the operations of a jaxpr; what depends on known arrays alone is computed here."""
    known: dict[Any, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
    known |= zip(jaxpr.invars, values, strict=True)

    def read(atom: Any) -> Value:
        literal = isinstance(atom, jax.extend.core.Literal)
        return np.asarray(atom.val, atom.aval.dtype) if literal else known[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        known |= zip(equation.outvars, _write(graph, equation, inputs), strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _write(graph: _Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    name, params = equation.primitive.name, equation.params
    inner = next((params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params), None)
    if inner is not None and name not in ("scan", "while", "cond"):
        closed = hasattr(inner, "consts")
        return _run(graph, inner.jaxpr if closed else inner, inner.consts if closed else (), inputs)
    fixed = all(isinstance(size, int) for v in equation.outvars for size in v.aval.shape)
    if fixed and name != "dim_as_value" and not any(isinstance(value, str) for value in inputs):
        found = equation.primitive.bind(*inputs, **params)
        found = found if equation.primitive.multiple_results else [found]
        return [np.asarray(array) for array in found]
    if name in _PLAIN:
        return [_add(graph, _PLAIN[name], inputs)]
    if name not in _RULES:
        remedy = "write the function with other operations, or export StableHLO"
        raise ConfigError("ONNX", f"has no rule for the operation {name}", remedy)
    written = _RULES[name](graph, equation, *inputs)
    return written if isinstance(written, list) else [written]


def _broadcast(graph: _Graph, equation: Any, x: Value, *_: Value) -> Value:
    (spec,), places = equation.outvars, equation.params["broadcast_dimensions"]
    old = dict(zip(places, equation.invars[0].aval.shape, strict=True))
    wide = [old.get(axis, 1) for axis in range(len(spec.aval.shape))]
    x = _reshaped(graph, x, wide)
    return (
        x
        if wide == list(spec.aval.shape)
        else _add(graph, "Expand", [x, _shape(graph, spec.aval.shape)])
    )


def _reshaped(graph: _Graph, x: Value, shape: Sequence[Any]) -> Value:
    symbols = sum(not isinstance(size, int) for size in shape)
    if symbols == 1 and 0 not in shape:  # the one size that is free need not be known
        shape = [size if isinstance(size, int) else -1 for size in shape]
    return _add(graph, "Reshape", [x, _shape(graph, shape)])


def _product(graph: _Graph, equation: Any, a: Value, b: Value) -> Value:
    (contract_a, contract_b), (batch_a, batch_b) = equation.params["dimension_numbers"]
    rank_a, rank_b = (len(atom.aval.shape) for atom in equation.invars)
    if rank_b == 2 and (*contract_a,) == (rank_a - 1,) and (*contract_b,) == (0,) and not batch_a:
        return _add(graph, "MatMul", [a, b])
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    of_a = [next(letters) for _ in range(rank_a)]
    same = dict(zip((*batch_b, *contract_b), (*batch_a, *contract_a), strict=True))
    of_b = [of_a[same[k]] if k in same else next(letters) for k in range(rank_b)]
    free = [of_a[k] for k in range(rank_a) if k not in (*batch_a, *contract_a)]
    free += [of_b[k] for k in range(rank_b) if k not in same]
    result = "".join([of_a[k] for k in batch_a] + free)
    return _add(graph, "Einsum", [a, b], equation=f"{''.join(of_a)},{''.join(of_b)}->{result}")


def _gather(graph: _Graph, equation: Any, x: Value, index: Value) -> Value:
    """Pieces at a known place, or whole slices along one axis at places of an array."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    shape, rank = equation.invars[0].aval.shape, len(equation.invars[1].aval.shape) - 1
    axes, result = numbers.start_index_map, equation.outvars[0].aval.shape
    whole = [sizes[k] == shape[k] for k in range(len(shape))]
    if isinstance(index, np.ndarray) and rank == 0:
        cut = [(k, at) for k, at in zip(axes, index.tolist(), strict=True) if not whole[k]]
        parts = [[at for _, at in cut], [at + sizes[k] for k, at in cut], [k for k, _ in cut]]
        return _reshaped(
            graph, _add(graph, "Slice", [x, *(np.array(p, np.int64) for p in parts)]), result
        )
    others = [k for k in range(len(shape)) if k not in axes]
    offsets = [k for k in range(len(result)) if not axes[0] <= k < axes[0] + rank]
    if (
        len(axes) != 1
        or numbers.collapsed_slice_dims != axes
        or not all(whole[k] for k in others)
        or list(numbers.offset_dims) != offsets
    ):
        raise ConfigError("ONNX", "has no rule for this kind of gather", "index along one axis")
    index = _reshaped(graph, index, equation.invars[1].aval.shape[:-1])
    return _add(graph, "Gather", [x, index], axis=axes[0])


def _scatter_add(graph: _Graph, equation: Any, x: Value, index: Value, new: Value) -> Value:
    # onnxruntime's ScatterND adds to one row from many threads at a time, and loses some of it
    # (onnxruntime issue 18048); its ScatterElements does not.
    numbers, shape = equation.params["dimension_numbers"], equation.invars[2].aval.shape
    if numbers.scatter_dims_to_operand_dims != (0,) or numbers.inserted_window_dims != (0,):
        raise ConfigError("ONNX", "has no rule for this kind of scatter", "add whole rows")
    index = _reshaped(graph, index, [shape[0], *[1] * (len(shape) - 1)])
    index = _add(graph, "Expand", [index, _shape(graph, shape)])
    return _add(graph, "ScatterElements", [x, index, new], axis=0, reduction="add")


def _slice(graph: _Graph, equation: Any, x: Value) -> Value:
    start, limit, strides = (
        equation.params[k] for k in ("start_indices", "limit_indices", "strides")
    )
    axes, steps = np.arange(len(start)), strides or [1] * len(start)
    parts = (_shape(graph, start), _shape(graph, limit), axes, np.array(steps))
    return _add(graph, "Slice", [x, *parts])


def _split(graph: _Graph, equation: Any, x: Value) -> list[Value]:
    axis = np.array([equation.params["axis"]])
    ends = np.cumsum(equation.params["sizes"])
    cuts = zip([0, *ends[:-1]], ends, strict=True)
    return [_add(graph, "Slice", [x, np.array([a]), np.array([b]), axis]) for a, b in cuts]


def _stack(graph: _Graph, equation: Any, *parts: Value) -> Value:
    axis = equation.params["axis"]
    wide = [_add(graph, "Unsqueeze", [x, np.array([axis])]) for x in parts]
    return _add(graph, "Concat", wide, axis=axis)


def _expm1(graph: _Graph, equation: Any, x: Value) -> Value:
    """tanh(x / 2) (e^x + 1), which keeps its digits near 0."""
    one, half = np.array(1, np.float32), np.array(0.5, np.float32)
    grown = _add(graph, "Add", [_add(graph, "Exp", [x]), one])
    return _add(graph, "Mul", [_add(graph, "Tanh", [_add(graph, "Mul", [x, half])]), grown])


def _reduced(op: str) -> Callable[..., Value]:
    def write(graph: _Graph, equation: Any, x: Value) -> Value:
        axes = np.array(equation.params["axes"])
        return _add(graph, op, [x, axes], keepdims=0)

    return write


def _power(graph: _Graph, equation: Any, x: Value) -> Value:
    exponent = np.asarray(equation.params["y"], equation.invars[0].aval.dtype)
    return _add(graph, "Pow", [x, exponent])


def _converted(graph: _Graph, equation: Any, x: Value) -> Value:
    new, old = (_type(atom.aval.dtype) for atom in (equation.outvars[0], equation.invars[0]))
    if new == old:
        return x
    helper = _needs("onnx").helper
    return _add(graph, "Cast", [x], to=helper.np_dtype_to_tensor_dtype(new))


_PLAIN = {
    "abs": "Abs", "add": "Add", "and": "And", "ceil": "Ceil", "cos": "Cos", "div": "Div",
    "eq": "Equal", "erf": "Erf", "exp": "Exp", "floor": "Floor", "ge": "GreaterOrEqual",
    "gt": "Greater", "le": "LessOrEqual", "log": "Log", "logistic": "Sigmoid", "lt": "Less",
    "max": "Max", "min": "Min", "mul": "Mul", "neg": "Neg", "not": "Not", "or": "Or", "pow": "Pow",
    "sign": "Sign", "sin": "Sin", "sqrt": "Sqrt", "sub": "Sub", "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip
"""Operations that are the same in both languages."""

_RULES: dict[str, Callable[..., Value | list[Value]]] = {
    "broadcast_in_dim": _broadcast,
    "clamp": lambda g, e, low, x, high: _add(g, "Min", [_add(g, "Max", [x, low]), high]),
    "concatenate": lambda g, e, *x: _add(g, "Concat", x, axis=e.params["dimension"]),
    "convert_element_type": _converted,
    "copy": lambda g, e, x: x,
    "dim_as_value": lambda g, e: _reshaped(g, _size(g, e.params["dim"]), ()),
    "dot_general": _product,
    "exp2": lambda g, e, x: _add(
        g, "Exp", [_add(g, "Mul", [x, np.array(math.log(2), np.float32)])]
    ),
    "expm1": _expm1,
    "gather": _gather,
    "integer_pow": _power,
    "log1p": lambda g, e, x: _add(g, "Log", [_add(g, "Add", [x, np.array(1, np.float32)])]),
    "reduce_max": _reduced("ReduceMax"),
    "reduce_min": _reduced("ReduceMin"),
    "reduce_sum": _reduced("ReduceSum"),
    "reshape": lambda g, e, x, *_: _reshaped(g, x, e.outvars[0].aval.shape),
    "ne": lambda g, e, a, b: _add(g, "Not", [_add(g, "Equal", [a, b])]),
    "rsqrt": lambda g, e, x: _add(g, "Reciprocal", [_add(g, "Sqrt", [x])]),
    "scatter-add": _scatter_add,
    "select_n": lambda g, e, which, no, yes: _add(g, "Where", [which, yes, no]),
    "slice": _slice,
    "split": _split,
    "square": lambda g, e, x: _add(g, "Mul", [x, x]),
    "squeeze": lambda g, e, x: _reshaped(g, x, e.outvars[0].aval.shape),
    "stack": _stack,
    "stop_gradient": lambda g, e, x: x,
    "transpose": lambda g, e, x: _add(g, "Transpose", [x], perm=e.params["permutation"]),
}
"""Operation -> how it is written."""
