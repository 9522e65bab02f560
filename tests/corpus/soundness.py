"""Soundness of one function: compact on small variables equals the function on masked ones."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import morph
import regularizers as reg
from regularizers.channels.calls import flat_paths
from regularizers.channels.graph import ChannelGraph

# Compiling is what takes the time: these settings of XLA's take a third of the default's.
FAST = {"xla_cpu_parallel_codegen_split_count": 1}
if jax.__version_info__ < (0, 11):  # later ones have no other emitters, nor the flag
    FAST |= {"xla_cpu_use_fusion_emitters": False}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far the compact function is from the masked one, and what there was to shrink.

    Attributes:
        values: the largest difference of an output, relative to the largest number of that output.
        gradients: the largest difference of a gradient, relative to the largest number of all
            gradients; NaN if it was not asked for.
        groups: the channel groups that were found.
        exact: those that may shrink without changing the function.
        resized: those that did.
        parameters_seed: trained parameters of the seed network.
        parameters_small: and of the shrunk one.
        unknown: primitives without a rule, with the source line of the first use.
    """

    values: float
    gradients: float
    groups: int
    exact: int
    resized: int
    parameters_seed: int
    parameters_small: int
    unknown: Mapping[str, str] = field(default_factory=dict)


def compare(
    fn: Callable[..., Any],
    variables: Any,
    *inputs: Any,
    keep: float = 0.5,
    seed: int = 0,
    gradients: bool = True,
    prunable: str | Sequence[str] | None = None,
    **static: Any,
) -> Comparison:
    """Shrinks `fn` to random channels and compares it with the masked `fn`.

    Args:
        fn: any function `fn(variables, *inputs, **static)`.
        variables: its variables, with numbers that no initializer would draw; see `fill`.
        *inputs: its further arguments.
        keep: the share of every exact group that stays; at least one channel stays.
        seed: of the channels that stay, and of the functional whose gradients are compared.
        gradients: also compare gradients, in the trained variables.
        prunable: patterns of what may shrink, for `reg.trace_channels`; all if it is not given.
        **static: keyword arguments of `fn`.

    Raises:
        ValueError: if the masked function gives a number that is not finite, or nothing but zeros.
        AssertionError: if the outputs differ in structure, shape, type, or in integers.
    """
    graph = reg.trace_channels(fn, variables, *inputs, prunable=prunable or (), **static)
    return compare_traced(graph, fn, variables, inputs, static, keep, seed, gradients)


def compare_traced(
    graph: ChannelGraph,
    fn: Callable[..., Any],
    variables: Any,
    inputs: Sequence[Any],
    static: Mapping[str, Any],
    keep: float = 0.5,
    seed: int = 0,
    gradients: bool = True,
) -> Comparison:
    """`compare` for a call whose graph is known already."""
    rng = np.random.default_rng(seed)
    alive = draw_alive(graph, rng, keep)
    arch = morph.shrink(graph, alive)
    trained = [path for path, variable in graph.variables.items() if variable.trained]
    jit = functools.partial(jax.jit, compiler_options=FAST)  # once for each side, with all it needs

    @jit
    def dense(variables, inputs):
        masked = graph.mask(variables, alive)
        return *evaluated(fn, masked, inputs, take_updates), masked

    @jit
    def compacted(small, inputs):
        return evaluated(morph.compact(fn, arch), small, inputs, lambda outputs: outputs)

    def evaluated(call, variables, inputs, sliced):
        """All outputs, and the gradients of a functional of them, by path."""
        paths, leaves, tree = flat_paths(variables)
        values = dict(zip(paths, leaves, strict=True))

        def scalar(parameters):
            merged = {**values, **parameters}
            outputs = call(jax.tree.unflatten(tree, merged.values()), *inputs, **static)
            outputs = sliced(dict(zip(*flat_paths(outputs)[:2], strict=True)))
            return functional(outputs.values(), seed), outputs

        parameters = {path: values[path] for path in trained}
        if not gradients:
            return scalar(parameters)[1], {}
        slopes, outputs = jax.grad(scalar, has_aux=True)(parameters)
        return outputs, slopes

    def take_updates(outputs):
        """Outputs that are updates of variables at the architecture's widths, the others whole."""
        owners = {path: updated(path, np.shape(value), graph) for path, value in outputs.items()}
        return {
            path: arch.take({owner: outputs[path]})[owner] if owner else outputs[path]
            for path, owner in owners.items()
        }

    expected, expected_slopes, masked = dense(variables, inputs)
    # By NumPy: nothing is compiled.
    small, expected_slopes = arch.take(jax.device_get((masked, expected_slopes)))
    found, slopes = compacted(small, inputs)
    return Comparison(
        values=values_apart(found, expected),
        gradients=gradients_apart(slopes, expected_slopes) if gradients else np.nan,
        groups=len(graph.groups),
        exact=sum(group.exact for group in graph.groups.values()),
        resized=len(arch.resized),
        parameters_seed=sum(arch.parameters(arch.seed_widths).values()),
        parameters_small=sum(arch.parameters().values()),
        unknown=graph.unknown,
    )


def draw_alive(graph: ChannelGraph, rng: np.random.Generator, keep: float) -> dict[str, np.ndarray]:
    """For every exact group a random subset of about `keep` of its channels, and at least one.

    Only these groups are masked: what is masked must be what is removed.
    """
    alive = {}
    for name, group in graph.groups.items():
        if group.exact:
            mask = np.zeros(group.width, bool)
            number = min(round(keep * group.width), group.width - 1)
            mask[rng.choice(group.width, max(1, number), replace=False)] = True
            alive[name] = mask
    return alive


def updated(path: str, shape: tuple[int, ...], graph: ChannelGraph) -> str | None:
    """The variable that an output is an update of: not trained, its path's end and its shape."""
    parts = path.split("/")
    for tail in ("/".join(parts[start:]) for start in range(len(parts))):
        variable = graph.variables.get(tail)
        if variable is not None and not variable.trained and variable.shape == shape:
            return tail
    return None


def functional(outputs: Iterable[Any], seed: int) -> Any:
    """A fixed random linear functional of all floating outputs."""
    rng = np.random.default_rng(seed + 1)
    total = jnp.float32(0.0)
    for value in outputs:
        for part in parts_of(value):
            weights = jnp.asarray(rng.normal(size=part.shape), jnp.float32)
            total += (weights * part.astype(jnp.float32)).sum()
    return total


def parts_of(value: Any) -> list[Any]:
    """The real numbers that an output is made of: none for integers, two parts if complex."""
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        return [value.real, value.imag]
    return [value] if jnp.issubdtype(value.dtype, jnp.floating) else []


def values_apart(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """The largest difference of an output, relative to the largest number of that output."""
    worst, largest = 0.0, 0.0
    for path, a, b in paired(found, expected):
        if not parts_of(b):
            np.testing.assert_array_equal(a, b, err_msg=path)
        elif b.size:
            difference, size = distance(a, b, f"output {path!r}")
            worst = max(worst, difference / size if difference else 0.0)
            largest = max(largest, size)
    if not largest and any(parts_of(b) for b in expected.values()):
        raise ValueError("all outputs of the masked function are zero: there is nothing to compare")
    return worst


def gradients_apart(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """The largest difference, relative to the largest gradient of all.

    Not of its own variable: some gradients are zero but for rounding, e.g. a bias before a norm.
    """
    worst, largest = 0.0, 0.0
    for path, a, b in paired(found, expected):
        if b.size:
            difference, size = distance(a, b, f"the gradient in {path!r}")
            worst, largest = max(worst, difference), max(largest, size)
    if not largest:
        raise ValueError("all gradients of the masked function are zero: nothing to compare")
    return worst / largest


def paired(
    found: Mapping[str, Any], expected: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Arrays of the same path, shape and type."""
    names = " and ".join(", ".join(tree) for tree in (expected, found))
    assert list(found) == list(expected), f"outputs differ: {names}"
    for path, value in expected.items():
        a, b = np.asarray(found[path]), np.asarray(value)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), path
        yield path, a, b


def distance(a: np.ndarray, b: np.ndarray, what: str) -> tuple[float, float]:
    """The largest |a - b| and the largest |b|, which must be finite; |a - b| may be NaN or inf."""
    wide = np.complex128 if np.iscomplexobj(b) else np.float64
    a, b = a.astype(wide), b.astype(wide)
    if not np.isfinite(b).all():
        raise ValueError(f"{what} of the masked function is not finite; choose other variables")
    difference = float(np.abs(a - b).max())
    size = float(np.abs(b).max())
    if not np.isfinite(difference) or (difference and not size):
        return np.inf, size or 1.0
    return difference, size


def fill(variables: Any, rng: np.random.Generator) -> Any:
    """Random numbers that no initializer would draw: nothing is zero, and variances are positive.

    Args:
        variables: a tree of arrays or of their shapes and types. Integers that are arrays stay as
            they are, integers that are only a shape become zeros: they are for the caller to set.
        rng: where the numbers come from.
    """
    paths, leaves, tree = flat_paths(variables)
    return jax.tree.unflatten(tree, [draw(*pair, rng) for pair in zip(paths, leaves, strict=True)])


def draw(path: str, leaf: Any, rng: np.random.Generator) -> Any:
    """Numbers for one variable, of the size that keeps activations near 1."""
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        abstract = isinstance(leaf, jax.ShapeDtypeStruct)
        return jnp.zeros(leaf.shape, leaf.dtype) if abstract else leaf
    fan_in = max(1, int(np.prod(leaf.shape[:-1])))
    value = rng.normal(size=leaf.shape) / np.sqrt(fan_in) + (0.3 if len(leaf.shape) == 1 else 0.0)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        value = value + 1j * rng.normal(size=leaf.shape) / np.sqrt(fan_in)
    if path.split("/")[-1] == "var":
        value = np.abs(value) + 0.5
    return jax.device_put(value.astype(leaf.dtype))  # jnp.asarray compiles for every shape
