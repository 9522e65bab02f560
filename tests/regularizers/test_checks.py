"""Rules for arguments: what they take, and what they say of what they do not."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regularizers import checks
from regularizers.checks import (
    FUNCTION,
    NAME,
    NAMES,
    PATH,
    TREE,
    all_of,
    by_name,
    checked,
    number,
    shown,
    whole,
)
from regularizers.errors import InputError, InputTypeError


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (number(), [0, -1.5, np.float32(2), jnp.ones(())], [math.nan, math.inf, "1", True, None]),
        (number(least=0.0, below=1.0), [0, 0.5], [-1e-9, 1.0]),
        (number(above=0.0, most=1.0), [1e-9, 1], [0.0, 1.1]),
        (whole(least=1), [1, np.int64(3), 10**400], [0, 1.0, True, "1"]),
        (number() | NAME, [1.0, "50%"], [math.nan, None]),
        (by_name(whole(least=0), "numbers"), [{}, {"a": 0}], [{"a": -1}, {1: 1}, [("a", 1)]]),
        (all_of(number(least=0.0), "numbers"), [(0.0,), [1, 2], np.ones(2)], [(), (-1,), "12"]),
        (NAMES, ["a", ("a", "b"), {"a"}], [b"a", [1], 3]),
        (PATH, ["a", checks.os.curdir], [b"a", 3]),
        (FUNCTION, [len, lambda: 0], [math, None]),
        (TREE, [{"a": np.ones(2)}, [jnp.ones(2), None]], [None, {}, {"a": "b"}]),
    ],
)
def test_what_a_rule_takes(rule, good, bad):
    assert [rule.takes(value) for value in good] == [True] * len(good)
    assert [rule.takes(value) for value in bad] == [False] * len(bad)


@checked(graph=checks.a(dict, "a graph"), cost=FUNCTION, steps=whole(least=1))
def entry(graph, cost=None, *more, steps=3):
    return graph, cost, more, steps


def test_what_makes_sense_passes():
    assert entry({}, len, 5, steps=2) == ({}, len, (5,), 2)
    assert entry({}, None) == ({}, None, (), 3)  # a default, said aloud
    assert entry.__name__ == "entry"


def test_the_message_says_what_was_asked_and_what_was_found():
    with pytest.raises(InputError, match=r"^entry: steps must be a whole number of at least 1, fo"):
        entry({}, steps=0)
    with pytest.raises(InputTypeError, match=r"steps must be .*, found 'many'$"):
        entry({}, steps="many")


def test_swapped_arguments_are_told():
    with pytest.raises(InputTypeError, match=r"graph must be a graph, .*; is it swapped with cost"):
        entry(len, {})


def test_missing_arguments_are_said_by_python():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'graph'"):
        entry()


def test_traced_numbers_pass():
    @checked(strength=number(least=0.0))
    def scaled(strength):
        return 2.0 * strength

    assert jax.jit(scaled)(3.0) == 6.0


def test_a_rule_belongs_to_an_argument():
    with pytest.raises(AssertionError, match="entry has no argument"):
        checked(speed=number())(entry)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (math.nan, "nan"),
        ("x" * 200, "'" + "x" * 76 + "..."),
        (np.ones((2, 3), np.float32), "an array float32[2, 3]"),
        ({"a": 1}, "{'a': 1}"),
        ([1, 2, 3, 4, 5], "a list of 5"),
        ([np.ones((9, 9))], "a list of 1"),
        (math, "the module math"),
        (len, "the function len"),
        (dict, "the class dict"),
        (object(), "a object"),
    ],
)
def test_values_in_messages(value, text):
    assert shown(value) == text
