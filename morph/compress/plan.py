"""A network in dynamic fixed point: the plan of its precisions, and what it computes with them.

What is rounded: kernels of products and convolutions, their biases, and the data that enter such a
product. In between, in normalizations, pools and sums, numbers are float32.

Source: Qiu et al. 2016, "Going deeper with embedded FPGA platform for convolutional neural
network", section 4.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from morph.compress.activations import Product, floats, integers, run, run_rounded
from morph.compress.fixed_point import (
    FixedPoint,
    Precision,
    best_precision,
    check_criterion,
    rounded,
    rounding_errors,
)
from morph.kernels.compressed import unpacked
from regularizers.channels.calls import bind_call, flat_paths
from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.channels.parts import layer_name
from regularizers.checks import FLAG, INPUTS, NAME, by_name, checked, whole
from regularizers.errors import InputError
from regularizers.messages import near
from regularizers.patterns import matching
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import JaxprEqn

WordLength: TypeAlias = int | Mapping[str, int]
Precisions: TypeAlias = Mapping[str, Precision]
BITS = replace(whole(least=2, most=16), asked="2 to 16 bits with the sign")
WORDS = by_name(BITS, "whole numbers by pattern") | BITS
SAMPLES = 1 << 18  # numbers of the data of each product that a fractional length is chosen by


@dataclass(frozen=True, kw_only=True)
class FixedPointPlan:
    """How every kernel, bias and input of a layer is written.

    Attributes:
        weights: kernels and biases, by path.
        data: what enters a product with a kernel, by the kernel's path; further uses of one kernel
            are `path (2)`, `path (3)`.
        dynamic: whether each has its own fractional length.
        errors: by the keys of both, `data ` in front of those of data: the mean |difference| from
            the float network's, by the mean |number| there.
        left: what stays in floating point, and why.
    """

    weights: Precisions
    data: Precisions
    dynamic: bool
    errors: Mapping[str, float] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)

    def apply(self, variables: Any) -> Any:
        """The variables with `FixedPoint` values.

        Raises:
            ValueError: if a kernel is missing or not finite.
        """
        paths, leaves, treedef = flat_paths(unpacked(variables))
        _check_known(self.weights, paths)
        found = []
        for path, leaf in zip(paths, leaves, strict=True):
            precision = self.weights.get(path)
            if precision is not None:
                _check_finite(leaf, path)
                leaf = FixedPoint(kernel=leaf, precision=precision)
            found.append(leaf)
        return jax.tree.unflatten(treedef, found)

    def simulated(self, fn: Callable[..., Any], *, exact: bool = True) -> Callable[..., Any]:
        """The same function in fixed point: with weights and data rounded.

        Args:
            fn: the function that was planned for, `fn(variables, *inputs, **static)`, in any mode
                and at any batch size. Its variables may be float or what `apply` gives.
            exact: multiply integers: `int8` or `int16` codes, summed in `int32` where no input can
                overflow that and as whole float64 numbers, exact to 2^53, elsewhere. Otherwise
                float32 products of rounded numbers: the same as long as sums stay below 2^24
                steps, and differentiable, straight through; for training.

        Returns:
            A function with the signature of `fn`; best jitted, it traces `fn` in every call.
        """
        multiply = integers if exact else floats

        @functools.wraps(fn)
        def fixed_point_fn(variables: Any, *inputs: Any, **static: Any) -> Any:
            call = bind_call(fn, unpacked(variables), inputs, static)
            _check_known(self.weights, call.paths)
            closed, outputs = call.trace(call.structs)
            leaves = [
                rounded(leaf, self.weights[path]) if path in self.weights else leaf
                for path, leaf in zip(call.paths, jax.tree.leaves(unpacked(variables)), strict=True)
            ]

            def product(use: str, path: str, eqn: JaxprEqn, side: int, pair: list[Any]) -> Any:
                written = [self.data.get(use), self.data.get(use)]
                written[side] = self.weights.get(path)
                return multiply(eqn, pair, written)

            found = run(closed, call.paths, [*leaves, *call.arrays], product)
            return jax.tree.unflatten(jax.tree.structure(outputs), found)

        return fixed_point_fn

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data: pairs are [word length, fractional length]."""

        def pairs(precisions: Precisions) -> dict[str, list[int]]:
            return {
                path: [own.word_length, own.fractional_length] for path, own in precisions.items()
            }

        return {
            "dynamic": self.dynamic,
            "weights": pairs(self.weights),
            "data": pairs(self.data),
            "errors": dict(self.errors),
            "left": dict(self.left),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FixedPointPlan:
        """The inverse of `to_json`.

        Raises:
            ValueError: if there are no such numbers.
        """

        def precisions(pairs: Mapping[str, Sequence[int]]) -> Precisions:
            return {
                path: Precision(word_length=word, fractional_length=fraction)
                for path, (word, fraction) in pairs.items()
            }

        return cls(
            weights=precisions(data["weights"]),
            data=precisions(data["data"]),
            dynamic=bool(data["dynamic"]),
            errors=dict(data["errors"]),
            left=dict(data["left"]),
        )

    def __str__(self) -> str:
        lines = [f"{'':<44} {'bits':>4} {'fraction':>8} {'error':>8}"]
        rows = {**self.weights, **{_data(use): own for use, own in self.data.items()}}
        for name, own in rows.items():
            error = f"{self.errors[name]:>8.4f}" if name in self.errors else ""
            name = name.replace("params/", "")
            lines.append(f"{name:<44} {own.word_length:>4} {own.fractional_length:>8} {error}")
        lines += [f"{name.replace('params/', ''):<44} {why}" for name, why in self.left.items()]
        return "\n".join(lines)


@checked(
    graph=GRAPH,
    calibration=INPUTS,
    word_length=WORDS,
    data_word_length=WORDS,
    dynamic=FLAG,
    activations=FLAG,
    criterion=NAME,
)
def fixed_point_plan(
    graph: ChannelGraph,
    variables: Any,
    calibration: Sequence[Any],
    *,
    word_length: WordLength = 8,
    data_word_length: WordLength | None = None,
    dynamic: bool = True,
    activations: bool = True,
    criterion: str = "l1",
) -> FixedPointPlan:
    """Chooses the precision of every kernel, bias and input of a layer on a calibration set.

    Dynamic (the paper's search): each kernel and bias gets the fractional length at which it loses
    the least, in L1; then, layer after layer in the order of the function, the data of each: that
    at which they differ the least, in L1, from the float network's, where all that comes before is
    in fixed point already.

    Static: one fractional length for all kernels and biases and one for all data: those at which
    the network's outputs differ the least, in L1; the weights' with float data, then the data's.

    Args:
        graph: of the function in evaluation mode, from `reg.trace_channels`.
        variables: what it was traced with.
        calibration: the inputs of the function, as arrays of the shapes that it was traced with.
        word_length: bits with the sign, 2 to 16; or for each pattern of layers or variables, of
            which the first that matches counts: `{"stem": 16, "*": 8}`. What none matches stays in
            floating point. A bias has that of its kernel.
        data_word_length: the same for data; `word_length` if None.
        dynamic: else static.
        activations: whether data are rounded at all.
        criterion: of dynamic precision; see `best_precision`.

    Raises:
        ValueError: if the calibration set is empty, does not fit or is not finite; a word length is
            out of range; a pattern matches nothing; a kernel is not finite.

    Example:
        >>> plan = fixed_point_plan(graph, variables, (x,))               # doctest: +SKIP
        >>> logits = jax.jit(plan.simulated(model.apply))(variables, x)   # doctest: +SKIP
    """
    check_criterion(criterion)
    by_path, _ = graph.leaves(unpacked(variables))
    arrays = calibration_arrays(graph, calibration)
    kernels = list(dict.fromkeys(o.kernel for o in graph.operations if o.kernel))
    words = _word_lengths(word_length, kernels, "word_length")
    data_words = words
    if data_word_length is not None:
        data_words = _word_lengths(data_word_length, kernels, "data_word_length")
    left = {path: "no pattern of word_length matches" for path in kernels if path not in words}
    words = {
        own: words[path]
        for path in words
        for own in (path, *_biases(graph, path))
        if own in by_path
    }

    found, errors = {}, {}
    for path, word in words.items():
        found[path], errors[path] = _best(by_path[path], word, by_path[path], path, criterion)
    search = _Search(graph=graph, leaves=by_path, inputs=arrays, criterion=criterion)
    if not dynamic:
        found = search.static(found, {}, _lengths(found), of="weights")
        errors = {path: _relative(by_path[path], own) for path, own in found.items()}
    data: dict[str, Precision] = {}
    if activations:
        data, lost = search.greedy(found, data_words, left)
        if not dynamic:
            data = search.static(found, data, _lengths(data), of="data")
            lost = {}
        errors |= {_data(use): error for use, error in lost.items()}
    return FixedPointPlan(weights=found, data=data, dynamic=dynamic, errors=errors, left=left)


@dataclass(frozen=True, kw_only=True)
class _Search:
    """A traced function with its variables and calibration set.

    Attributes:
        graph: of the function.
        leaves: its variables, by path.
        inputs: the calibration set.
        criterion: by which fractional lengths are chosen.
    """

    graph: ChannelGraph
    leaves: Mapping[str, Any]
    inputs: Sequence[Any]
    criterion: str

    def greedy(
        self, weights: Precisions, words: Mapping[str, int], left: dict[str, str]
    ) -> tuple[dict[str, Precision], dict[str, float]]:
        """The precisions of data, one after the other, and their errors.

        Args:
            weights: the precisions of kernels and biases.
            words: the word lengths of data, by kernel.
            left: told which data stay in floating point.
        """
        seen: dict[str, np.ndarray] = {}
        found: dict[str, Precision] = {}
        errors: dict[str, float] = {}

        def watch(use: str, path: str, eqn: JaxprEqn, side: int, pair: list[Any]) -> Any:
            if path in words and not isinstance(pair[1 - side], jax.core.Tracer):
                seen[use] = _samples(pair[1 - side], use)
            return floats(eqn, pair, (None, None))

        def choose(use: str, path: str, eqn: JaxprEqn, side: int, pair: list[Any]) -> Any:
            if use in seen:
                now = _samples(pair[1 - side], use)
                found[use], errors[use] = _best(
                    now, words[path], seen[use], f"data of {use}", self.criterion
                )
            elif path in words:
                left[_data(use)] = "inside of a loop or branch: no data were seen"
            written = [found.get(use), found.get(use)]
            written[side] = None  # rounded already
            return floats(eqn, pair, written)

        self.run({}, watch)
        self.run(weights, choose)
        return found, errors

    def static(
        self, weights: Precisions, data: Precisions, lengths: Sequence[int], *, of: str
    ) -> dict[str, Precision]:
        """One fractional length for all weights, or all data: of the closest outputs."""
        expected = self.outputs({}, {})
        best: tuple[float, dict[str, Precision]] = math.inf, {}
        for length in lengths:
            alike = {
                path: Precision(word_length=own.word_length, fractional_length=length)
                for path, own in (weights if of == "weights" else data).items()
            }
            now = self.outputs(alike, {}) if of == "weights" else self.outputs(weights, alike)
            error = sum(float(jnp.abs(a - b).sum()) for a, b in zip(now, expected, strict=True))
            best = min(best, (error, alike), key=lambda pair: pair[0])
        return best[1]

    def outputs(self, weights: Precisions, data: Precisions) -> list[Any]:
        """What the function gives, those that are floating-point numbers."""

        def product(use: str, path: str, eqn: JaxprEqn, side: int, pair: list[Any]) -> Any:
            written = [data.get(use), data.get(use)]
            written[side] = None
            return floats(eqn, pair, written)

        found = self.run(weights, product)
        return [y for y in found if jnp.issubdtype(y.dtype, jnp.inexact)]

    def run(self, weights: Precisions, product: Product) -> list[Any]:
        """Runs the function, operation by operation, with rounded weights."""
        return run_rounded(self.graph, self.leaves, self.inputs, weights, product)


def _samples(x: Any, what: str) -> np.ndarray:
    """Some of the data, of the same places whatever they are."""
    if not bool(jnp.isfinite(x).all()):
        raise InputError(f"data of {what} are NaN or infinite on the calibration set")
    flat = np.asarray(x, np.float32).reshape(-1)
    if flat.size <= SAMPLES:
        return flat
    return flat[np.random.default_rng(0).integers(0, flat.size, SAMPLES)]


def _best(x: Any, word: int, reference: Any, what: str, criterion: str) -> tuple[Precision, float]:
    """The best precision, and its error by the mean magnitude of the reference."""
    found, error = best_precision(x, word, reference, criterion=criterion, what=what)
    return found, error / max(float(np.abs(np.asarray(reference, np.float64)).sum()), 1e-30)


def _relative(x: Any, own: Precision) -> float:
    x = np.asarray(x, np.float64)
    (error,) = rounding_errors(x, own.word_length, [own.fractional_length])
    return float(error) / max(float(np.abs(x).sum()), 1e-30)


def _lengths(precisions: Precisions) -> range:
    """All fractional lengths between those of some precisions."""
    found = [own.fractional_length for own in precisions.values()]
    return range(min(found, default=0), max(found, default=-1) + 1)


def _data(use: str) -> str:
    return f"data {use}"


def _biases(graph: ChannelGraph, kernel: str) -> list[str]:
    """What is added in the layer of a kernel."""
    return [
        path
        for path, variable in graph.variables.items()
        if variable.kind == "shift" and variable.trained and layer_name(path) == layer_name(kernel)
    ]


def _word_lengths(given: WordLength, kernels: Sequence[str], what: str) -> dict[str, int]:
    """The word length of every kernel that a pattern matches, in the order of the function."""
    found: dict[str, int] = {}
    for pattern, word in ({"*": given} if isinstance(given, int) else dict(given)).items():
        for i in matching(pattern, kernels, what):
            found.setdefault(kernels[i], word)
    return {path: found[path] for path in kernels if path in found}


def calibration_arrays(graph: ChannelGraph, calibration: Sequence[Any]) -> list[Any]:
    """The arrays of a calibration set, checked."""
    arrays = [jnp.asarray(x) for x in jax.tree.leaves(tuple(calibration))]
    expected = [jaxprs.shape_of(v) for v in graph.jaxpr.invars[len(graph.variables) :]]
    found = [x.shape for x in arrays]
    if any(0 in shape for shape in found) or not found:
        raise InputError(f"the calibration set is empty: shapes {found}; give at least one example")
    if found != expected:
        raise InputError(
            f"the calibration set has shapes {found}, the function was traced with {expected}; "
            "trace it with the calibration set, or give as many examples as it was traced with"
        )
    for x in arrays:
        _check_finite(x, "the calibration set")
    return arrays


def _check_finite(x: Any, what: str) -> None:
    if jnp.issubdtype(x.dtype, jnp.inexact) and not bool(jnp.isfinite(x).all()):
        raise InputError(f"{what} holds values that are NaN or infinite")


def _check_known(planned: Mapping[str, Any], paths: Sequence[str]) -> None:
    for path in planned:
        if path not in paths:
            raise InputError(f"the variables have no {path!r}, which is planned{near(path, paths)}")
