"""What public entries ask of their arguments: rules in words, and one decorator that holds them.

    @checked(graph=GRAPH, budget=number(above=0.0))
    def widen(graph, budget): ...

An argument of another kind is an `InputTypeError`, one of the kind that makes no sense an
`InputError`; both say what was asked, what was found, and whether two arguments are swapped.
Defaults are not looked at, and traced numbers pass: their values are not known.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.errors import InputError, InputTypeError

P = ParamSpec("P")
R = TypeVar("R")
MOST_SHOWN = 80  # characters of a value in a message


def _any(value: Any) -> bool:
    del value
    return True


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What an argument has to be.

    Attributes:
        asked: in words that follow "must be", with where to get one.
        kind: whether a value is of the right kind.
        holds: whether one of the right kind makes sense.
    """

    asked: str
    kind: Callable[[Any], bool]
    holds: Callable[[Any], bool] = _any

    def takes(self, value: Any) -> bool:
        """Whether a value will do."""
        return self.kind(value) and self.holds(value)

    def __or__(self, other: Rule) -> Rule:
        """Either of two."""
        return Rule(
            asked=f"{self.asked}, or {other.asked}",
            kind=lambda value: self.kind(value) or other.kind(value),
            holds=lambda value: self.takes(value) or other.takes(value),
        )


def checked(**rules: Rule) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function that checks some of its arguments, by name, before it begins.

    Example:
        >>> @checked(steps=whole(least=1))
        ... def train(steps): ...
        >>> train(0)
        Traceback (most recent call last):
        regularizers.errors.InputError: train: steps must be a whole number of at least 1, found 0
    """

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(fn)
        name = fn.__qualname__.removesuffix(".__init__")
        if odd := rules.keys() - signature.parameters:
            raise AssertionError(f"{name} has no argument {odd}")

        @functools.wraps(fn)
        def entry(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError:  # Python says which one is missing or unknown
                return fn(*args, **kwargs)
            defaults = signature.parameters
            check(name, {
                argument: value
                for argument, value in given.items()
                if argument in rules and value is not defaults[argument].default
            }, rules)  # fmt: skip
            return fn(*args, **kwargs)

        return entry

    return decorate


def check(entry: str, given: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Raises for the first argument that will not do.

    Args:
        entry: the name of the function, for the message.
        given: the arguments, by name; each has a rule.
        rules: by name.

    Raises:
        InputTypeError: if it is of another kind. InputError: if it makes no sense.
    """
    for argument, value in given.items():
        rule = rules[argument]
        if rule.takes(value):
            continue
        swapped = [
            other
            for other, its in given.items()
            if other != argument and rule.takes(its) and rules[other].takes(value)
        ]
        hint = f"; is it swapped with {swapped[0]}?" if swapped else ""
        message = f"{entry}: {argument} must be {rule.asked}, found {shown(value)}{hint}"
        raise (InputError if rule.kind(value) else InputTypeError)(message)


def shown(value: Any) -> str:
    """A value in a message: short, whatever it is."""
    if value is None or isinstance(value, str | bytes | bool | Real):
        text = repr(value)
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        one = np.ndim(value) == 0 and not isinstance(value, jax.core.Tracer)
        text = repr(value) if one else f"an array {value.dtype}{list(value.shape)}"
    elif isinstance(value, dict | list | tuple | set | frozenset):
        text = repr(value) if len(value) < 4 else f"a {type(value).__name__} of {len(value)}"
        if "\n" in text or len(text) > MOST_SHOWN:
            text = f"a {type(value).__name__} of {len(value)}"
    elif inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value):
        kind = "module" if inspect.ismodule(value) else "class" if inspect.isclass(value) else ""
        text = f"the {kind or 'function'} {getattr(value, '__name__', '')}"
    else:
        text = f"a {type(value).__name__}"
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def a(cls: type | tuple[type, ...], asked: str) -> Rule:
    """An instance of a class; `asked` says which, and what gives one."""
    return Rule(asked=asked, kind=lambda value: isinstance(value, cls))


def number(
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Rule:
    """A finite number within bounds, also one of NumPy or JAX."""
    return Rule(
        asked=f"a finite number{_bounds(least, above, most, below)}",
        kind=_is_number,
        holds=lambda value: _traced(value) or _within(value, least, above, most, below),
    )


def whole(*, least: int | None = None, most: int | None = None) -> Rule:
    """A whole number within bounds; no float."""
    return Rule(
        asked=f"a whole number{_bounds(least, None, most, None)}",
        kind=lambda value: isinstance(value, Integral) and not isinstance(value, bool),
        holds=lambda value: _within(value, least, None, most, None),
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, jax.Array | np.ndarray):
        return (value.ndim == 0 and bool(np.issubdtype(value.dtype, np.number))) or _traced(value)
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def _within(
    value: Any, least: float | None, above: float | None, most: float | None, below: float | None
) -> bool:
    return (
        (isinstance(value, Integral) or math.isfinite(value))
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    )


def _bounds(
    least: float | None, above: float | None, most: float | None, below: float | None
) -> str:
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (
            ("of at least", least), ("above", above), ("at most", most), ("below", below),
        )
        if bound is not None
    ]  # fmt: skip
    return (" " if bounds else "") + " and ".join(bounds)


def all_of(each: Rule, asked: str) -> Rule:
    """A sequence of things, none of which is missing; `asked` says of what."""
    return Rule(
        asked=asked,
        kind=lambda value: (
            isinstance(value, Sequence | np.ndarray)
            and not isinstance(value, str | bytes)
            and all(map(each.kind, value))
        ),
        holds=lambda value: len(value) > 0 and all(map(each.holds, value)),
    )


def by_name(each: Rule, asked: str) -> Rule:
    """A mapping from strings; `asked` says to what."""
    return Rule(
        asked=asked,
        kind=lambda value: (
            isinstance(value, Mapping)
            and all(isinstance(name, str) for name in value)
            and all(map(each.kind, value.values()))
        ),
        holds=lambda value: all(map(each.holds, value.values())),
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, Collection)
        and not isinstance(value, bytes)
        and all(isinstance(name, str) for name in value)
    )


def _is_dtype(value: str) -> bool:
    try:
        return jnp.dtype(value).itemsize > 0
    except TypeError:
        return value == "own"


def _is_tree(value: Any) -> bool:
    return all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in jax.tree.leaves(value))


FLAG = a((bool, np.bool_), "True or False")
FUNCTION = Rule(asked="a function", kind=callable)
NAME = a(str, "a name, as a string")
NAMES = Rule(asked="a pattern of names, or several", kind=_is_names)
NONE = a(type(None), "None")
PATH = a((str, os.PathLike), "a path")
ARRAY = Rule(
    asked="an array",
    kind=lambda value: hasattr(value, "shape") and hasattr(value, "dtype"),
)
TREE = Rule(
    asked="a tree of arrays, at least one",
    kind=_is_tree,
    holds=lambda value: bool(jax.tree.leaves(value)),
)
LEAVES = Rule(asked="a tree of arrays", kind=_is_tree)
INPUTS = Rule(
    asked="the inputs of the function as arrays, e.g. (x,)",
    kind=lambda value: value is not None and _is_tree(value),
)
DTYPE = Rule(asked="the name of a type, e.g. 'int8'", kind=a(str, "").kind, holds=_is_dtype)
OPTIMIZER = Rule(
    asked="an optax optimizer, e.g. optax.sgd(0.1)",
    kind=lambda value: (
        callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))
    ),
)
