"""`native(model, architecture)`: a Flax model whose own code runs at the new widths."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import flax.linen as nn
from flax import nnx

from morph.architecture.architecture import ARCHITECTURE, Architecture
from morph.errors import NativeError, NativeNumbersWarning
from morph.modules.linen_layers import LinenSeed
from morph.modules.nnx_layers import NNXSeed
from morph.modules.verify import Expectation, Numbers
from morph.modules.widths import (
    Changes,
    Layers,
    as_seed,
    by_layer,
)
from regularizers.checks import FLAG, checked
from regularizers.errors import InputTypeError
from regularizers.primitives import axes as ax

Model = TypeVar("Model", bound=nn.Module | nnx.Module)

# An attribute of all layers of one class; the position within it if it is a tuple.
Slot: TypeAlias = tuple[type, str, int | None]
Values: TypeAlias = dict[str, int]  # of one slot, by the path of the layer

MOST_TRIALS = 256  # of combinations of attributes


class Seed(Protocol):
    """A model that is to be rebuilt, of whatever framework."""

    fn: Callable[..., Any]
    variables: Any
    layers: Layers

    def rebuild(self, architecture: Architecture, changes: Changes) -> Any:
        """The model at the widths of an architecture, with some attributes changed."""

    def function(self, model: Any) -> Callable[..., Any]:
        """A rebuilt model as a function of its variables."""


@checked(architecture=ARCHITECTURE, rescale_means=FLAG)
def native(
    model: Model,
    architecture: Architecture,
    *inputs: Any,
    rescale_means: bool = False,
    **static: Any,
) -> Model:
    """The model again, as a module of its own framework, at the widths of an architecture.

    For NNX a module of the same class with sliced variables. For Linen a module of a subclass of
    the model's: its `init` gives variables of the architecture's shapes, its `apply` takes them.
    Layers of Flax get the attributes that their variables have now. An attribute of a module of
    the user's own (an integer, or one in a tuple, e.g. `num_heads`) changes only if the call needs
    it: it has to be the seed's size of a part of an axis under that module, and exactly one choice
    of new sizes must pass the verification below. All others stay as they are.

    Verified is that the call runs and that its trace equals that of `morph.compact`'s
    function equation by equation, in shapes and in where slices start. The numbers may differ
    where code computes them from widths, of which a `NativeNumbersWarning` tells: a mean over a
    resized axis (LayerNorm, RMSNorm, GroupNorm) divides by the width now, as
    `morph.compact(..., rescale_means=True)` does, and attention scales by the width of its heads
    now; `morph.compact` alone keeps the seed's numbers.

    Args:
        model: an `nnx.Module` or `flax.linen.Module`; it is not changed.
        architecture: inferred from `reg.nnx_function(model)` or `model.apply`.
        *inputs: example inputs of that function; arrays or `jax.ShapeDtypeStruct`s. An NNX model
            may go without. Then nothing is called: layers of Flax agree with their variables, but
            code of the user's that fixes a width is only found when it runs.
        rescale_means: that numbers are those of the widths now is as it should be: no warning.
        **static: keyword arguments of that call, e.g. `train=True`.

    Returns:
        The native model. Modes and random streams are those of `model`.

    Raises:
        NativeError: if the model's code fixes a width that the architecture changed, or it cannot
            be told which attributes follow. `morph.compact` does not mind.
        ArchitectureError: if the architecture is another model's, or has fresh channels (NNX).
        TypeError: if it is neither an NNX nor a Linen module.

    Example:
        >>> small = morph.native(model, arch, x)  # doctest: +SKIP
        >>> small(x)  # doctest: +SKIP
    """
    called = bool(inputs or static)
    seed: Seed
    try:
        if isinstance(model, nnx.Module):
            seed = NNXSeed(model)
        elif not isinstance(model, nn.Module):
            raise InputTypeError(f"expected an nnx.Module or a flax.linen.Module, found {model!r}")
        elif called:
            seed = LinenSeed(model, architecture, inputs, static)
        else:
            raise NativeError("a Linen module has layers only in a call: pass example inputs")
        if not called:
            return _uncalled(seed, architecture)
        model, told = _called(seed, architecture, inputs, static)
    except NativeError as error:
        raise NativeError(
            f"{type(model).__name__} cannot run natively at these widths: {error}. "
            "morph.compact(fn, architecture) runs any model."
        ) from error
    if told and not rescale_means:
        warnings.warn(f"{type(model).__name__} {told}", NativeNumbersWarning, stacklevel=3)
    return model


def _uncalled(seed: Seed, architecture: Architecture) -> Any:
    for (kind, name, _), choices in _choices(seed.layers, architecture).items():
        raise NativeError(
            f"{kind.__name__}.{name} = {next(iter(choices[0].values()))} may be a width that "
            "changed, which only a call can tell: pass example inputs"
        )
    return seed.rebuild(architecture, {})


def _called(
    seed: Seed, architecture: Architecture, inputs: Sequence[Any], static: Mapping[str, Any]
) -> tuple[Any, str]:
    """The model, and what is to be told of numbers that are not the seed's."""
    expected = Expectation(seed.fn, architecture, seed.variables, inputs, static)

    def trial(architecture: Architecture, chosen: Mapping[Slot, Values]) -> tuple[Any, Numbers]:
        model = seed.rebuild(architecture, _changes(seed.layers, chosen))
        return model, expected.check(seed.function(model), architecture)

    choices = _choices(seed.layers, architecture)
    chosen: dict[Slot, Values] = {}
    try:
        model, numbers = trial(architecture, chosen)
    except NativeError as why:
        chosen, model, numbers = _only_fit(trial, architecture, choices, why)
    pairs = enumerate(zip(expected.numbers, numbers, strict=True))
    moved = [i for i, (was, now) in pairs if was != now]
    if moved:
        left = {slot: choices[slot] for slot in choices.keys() - chosen.keys()}
        _check_numbers(trial, architecture, chosen, left, [(i, numbers[i]) for i in moved])
    return model, _told(expected, numbers, moved)


def _check_numbers(
    trial: Callable[..., tuple[Any, Numbers]],
    architecture: Architecture,
    chosen: Mapping[Slot, Values],
    left: Mapping[Slot, Sequence[Values]],
    moved: Sequence[tuple[int, Any]],
) -> None:
    """Raises if a number that is not the seed's any more may have to be another one.

    That is so if it depends on an attribute that stays the seed's, and that might be a width: with
    twice its value the number is another one, or, where the call does not run then, with those of
    its other choices that pass.
    """

    def differ(values: Mapping[Slot, Values]) -> bool | None:
        """Whether these values make another number; None if the call does not run with them."""
        try:
            _, others = trial(architecture, {**chosen, **values})
        except NativeError:
            return None
        return any(others[i] != now for i, now in moved)

    found = {slot: differ({slot: _other(values[0], 2, 0)}) for slot, values in left.items()}
    free = [slot for slot, differs in found.items() if differs]
    shaping = [slot for slot, differs in found.items() if differs is None]
    if math.prod(len(left[slot]) for slot in shaping) > MOST_TRIALS:
        raise NativeError(f"too many attributes may be widths: {_names(shaping)}")
    for values in itertools.product(*(left[slot] for slot in shaping)):
        others = {s: v for s, v in zip(shaping, values, strict=True) if v != left[s][0]}
        free += list(others) if others and differ(others) else []
    if free:
        may_be = sorted({v for choice in left[free[0]] for v in choice.values()})
        raise NativeError(
            f"numbers in it depend on {_names(free[:1])}, which may be any of {may_be} now"
        )


def _told(expected: Expectation, numbers: Numbers, moved: Sequence[int]) -> str:
    """The differences between the model's function and that of `morph.compact`."""

    def shown(i: int) -> str:
        was, now = (
            ", ".join(f"{n:.6g}" for n in values) for values in (expected.numbers[i], numbers[i])
        )
        return f"{expected.scopes[i] or 'the model'} {was} -> {now}"

    # Whole numbers are sizes and positions, which compact computes anew, too.
    moved = [i for i in moved if any(isinstance(n, float) for n in numbers[i])]
    means = [shown(i) for i in moved if i in expected.of_means]
    others = [shown(i) for i in moved if i not in expected.of_means]
    told = []
    if means:
        told.append(
            "divides means by the widths now, where morph.compact(fn, architecture) keeps the "
            f"seed's ({_few(means)}): its outputs differ from those of compact, and equal "
            "morph.compact(fn, architecture, rescale_means=True)"
        )
    if others:
        told.append(
            f"computes other numbers from the widths now ({_few(others)}), e.g. the scale of "
            "attention, which morph.compact keeps as they were in the seed"
        )
    end = ". If that is meant, say so: morph.native(model, architecture, ..., rescale_means=True)."
    return "; it ".join(told) + end if told else ""


def _few(texts: Sequence[str]) -> str:
    unique = list(dict.fromkeys(texts))
    return ", ".join(unique[:3]) + (", ..." if len(unique) > 3 else "")


def _only_fit(
    trial: Callable[..., tuple[Any, Numbers]],
    architecture: Architecture,
    choices: Mapping[Slot, Sequence[Values]],
    why: NativeError,
) -> tuple[dict[Slot, Values], Any, Numbers]:
    """The one choice of attributes that passes; `why` says what is wrong with changing none."""

    def matters(slot: Slot) -> bool:
        """Whether the call's shapes depend on it: with another value the seed would not pass."""
        try:
            for factor, more in ((1, 1), (2, 0)):
                trial(as_seed(architecture), {slot: _other(choices[slot][0], factor, more)})
        except NativeError:
            return True
        return False

    open_slots = {slot: values for slot, values in choices.items() if matters(slot)}
    if math.prod(map(len, open_slots.values())) > MOST_TRIALS:
        raise NativeError(f"too many attributes may be widths: {_names(open_slots)}") from why
    passed = []
    for values in itertools.product(*open_slots.values()):
        chosen = dict(zip(open_slots, values, strict=True))
        try:
            passed.append((chosen, *trial(architecture, chosen)))
        except NativeError:
            continue
    if not passed:
        raise why
    if len(passed) > 1:
        differ = [s for s in open_slots if any(c[s] != passed[0][0][s] for c, *_ in passed)]
        raise NativeError(f"more than one choice fits for {_names(differ)}") from why
    return passed[0]


def _other(values: Values, factor: int, more: int) -> Values:
    return {path: factor * value + more for path, value in values.items()}


def _choices(layers: Layers, architecture: Architecture) -> dict[Slot, list[Values]]:
    """For each attribute that may be a width that changed: the seed's values, and the others."""
    widths = by_layer(architecture)
    slots: dict[Slot, Values] = {}
    for path, (kind, attributes) in layers.items():
        for name, index, value in _integers(attributes):
            if path in widths:
                slots.setdefault((kind, name, index), {})[path] = value
    terms = {path: widths[path].terms() for values in slots.values() for path in values}
    seed, now = architecture.seed_widths, architecture.widths
    choices = {}
    for slot, values in slots.items():
        found = [values]
        for place in dict.fromkeys(place for path in values for place in terms[path]):
            other = dict(values)
            for path, value in values.items():
                term = terms[path].get(place)
                if term is not None and ax.size(term, seed) == value:
                    other[path] = ax.size(term, now)
            if other not in found:
                found.append(other)
        if len(found) > 1:
            choices[slot] = found
    return choices


def _integers(attributes: Mapping[str, Any]) -> Iterator[tuple[str, int | None, int]]:
    for name, value in attributes.items():
        if name.startswith("_pytree"):
            continue
        if type(value) is int:
            yield name, None, value
        elif type(value) is tuple:
            yield from ((name, i, n) for i, n in enumerate(value) if type(n) is int)


def _changes(layers: Layers, chosen: Mapping[Slot, Values]) -> dict[str, dict[str, Any]]:
    changes: dict[str, dict[str, Any]] = {}
    for (_, name, index), values in chosen.items():
        for path, value in values.items():
            of_layer = changes.setdefault(path, {})
            if index is None:
                of_layer[name] = value
            else:
                old = of_layer[name] if name in of_layer else layers[path][1][name]
                of_layer[name] = (*old[:index], value, *old[index + 1 :])
    return changes


def _names(slots: Iterable[Slot]) -> str:
    return ", ".join(dict.fromkeys(f"{kind.__name__}.{name}" for kind, name, _ in slots))
