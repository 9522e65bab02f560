"""Shrink: which channels stay, and in which order."""

import jax.numpy as jnp
import numpy as np
import pytest

import morph


def only(width, *alive):
    return np.isin(np.arange(width), alive)


# Shrink


def test_keeps_alive_channels_in_order(graph):
    arch = morph.shrink(graph, {"a": only(6, 1, 4, 5)})
    assert arch.groups["a"].parents == (1, 4, 5)
    assert all(type(parent) is int for parent in arch.groups["a"].parents)
    assert arch.widths == {"a": 3, "b": 5, "c": 7}
    assert arch.width_multiplier is None


def test_takes_jax_masks_and_none_at_all(graph):
    assert morph.shrink(graph, {"a": jnp.arange(6) < 2}).widths["a"] == 2
    assert morph.shrink(graph, {}).resized == frozenset()


@pytest.mark.parametrize(
    ("alive", "min_width", "parents"),
    [
        ((), 1, (0,)),
        ((3,), 1, (3,)),
        ((), 3, (0, 1, 2)),
        ((4,), 3, (0, 1, 4)),
        ((1, 4), 2, (1, 4)),
        ((1, 4, 5), 2, (1, 4, 5)),
        ((2,), 99, (0, 1, 2, 3, 4, 5)),
        ((), 0, ()),
    ],
)
def test_dead_channels_fill_up_to_the_minimal_width(graph, alive, min_width, parents):
    arch = morph.shrink(graph, {"a": only(6, *alive)}, min_width=min_width)
    assert arch.groups["a"].parents == parents


def test_inexact_groups_stay_whole_unless_asked(graph):
    alive = {"a": only(6, 0, 1), "b": only(5, 2)}
    assert morph.shrink(graph, alive).widths == {"a": 2, "b": 5, "c": 7}
    assert morph.shrink(graph, alive, inexact=True).widths == {"a": 2, "b": 1, "c": 7}


def test_shrink_does_not_change_the_masks(graph):
    alive = {"a": only(6)}
    morph.shrink(graph, alive)
    assert not alive["a"].any()


def test_wrong_masks_are_refused(graph):
    with pytest.raises(KeyError, match="no channel group 'e'; known are 'a', 'b', 'c'"):
        morph.shrink(graph, {"e": only(6)})
    with pytest.raises(ValueError, match=r"alive must be bool\[6\], found bool\[5\]"):
        morph.shrink(graph, {"a": only(5)})
    with pytest.raises(ValueError, match=r"alive must be bool\[6\], found int64\[6\]"):
        morph.shrink(graph, {"a": np.arange(6)})
