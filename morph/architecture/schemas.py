"""JSON Schema, checked quickly where files are long: arrays of numbers and names, and axes.

The standard's validator looks at every item of an array by itself, and at an axis once for every
form that it might have. Here an array of integers or names takes one look, and an axis one.
"""

from __future__ import annotations

import itertools
import math
import reprlib
from collections.abc import Iterator
from typing import Any

import jsonschema

_AXIS = "#/$defs/axis"
_MOST_FACTORS = 64  # whose product can still be told in digits
_MOST_PARTS = 100_000  # of one axis, at all levels
_STANDARD = jsonschema.Draft202012Validator.VALIDATORS


def validator(schema: Any) -> Any:
    """A validator of this schema."""
    quick = {"items": _items, "$ref": _ref}
    return jsonschema.validators.extend(jsonschema.Draft202012Validator, quick)(schema)


def _items(validator: Any, items: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, list) and items == {"type": "string"}:
        if all(type(value) is str for value in instance):
            return
    elif isinstance(instance, list) and items == {"$ref": _AXIS}:
        if all(type(axis) is str or (type(axis) is int and axis >= 0) for axis in instance):
            return
    elif isinstance(instance, list) and items.get("type") == "integer":
        least = items.get("minimum", float("-inf"))
        if all(type(value) is int and value >= least for value in instance):
            return
    yield from _STANDARD["items"](validator, items, instance, schema)


def _ref(validator: Any, ref: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if ref != _AXIS:
        yield from _STANDARD["$ref"](validator, ref, instance, schema)
    elif _factors(instance, itertools.count()) > _MOST_FACTORS:
        yield jsonschema.ValidationError(
            f"{reprlib.repr(instance)} is no axis: a length >= 0, a group's name, a sum or product "
            f"of axes, or an axis in another order, of at most {_MOST_FACTORS} factors and "
            f"{_MOST_PARTS:,} parts"
        )


def _is_order(values: Any) -> bool:
    """Whether these are the positions 0, 1, ... of an axis, in some order."""
    if not isinstance(values, list) or any(type(value) is not int for value in values):
        return False
    return sorted(values) == list(range(len(values)))


def _factors(value: Any, seen: Iterator[int]) -> float:
    """How many lengths are multiplied in an axis; infinitely many if it is none, or too long."""
    if next(seen) > _MOST_PARTS:
        return math.inf
    if isinstance(value, dict) and value.keys() == {"permuted", "order"}:
        return _factors(value["permuted"], seen) if _is_order(value["order"]) else math.inf
    if isinstance(value, dict) and len(value) == 1:
        ((kind, parts),) = value.items()
        if kind in ("sum", "product") and isinstance(parts, list):
            found = 0.0
            for part in parts:
                factors = _factors(part, seen)
                found = found + factors if kind == "product" else max(found, factors)
                if found == math.inf:
                    break
            return found
    is_length = type(value) is int or (type(value) is float and value.is_integer())
    return 1 if isinstance(value, str) or (is_length and value >= 0) else math.inf
