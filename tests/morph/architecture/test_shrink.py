"""Shrink: which channels stay, and in which order."""

import jax.numpy as jnp
import numpy as np
import pytest

import morph


def only(width, *alive):
    return np.isin(np.arange(width), alive)


# Shrink


def test_keeps_alive_channels_in_order(chain):
    arch = morph.shrink(chain, {"a": only(6, 1, 4, 5)})
    assert arch.groups["a"].parents == (1, 4, 5)
    assert all(type(parent) is int for parent in arch.groups["a"].parents)
    assert arch.widths == {"a": 3, "b": 5, "c": 7}
    assert arch.width_multiplier is None


def test_takes_jax_masks_and_none_at_all(chain):
    assert morph.shrink(chain, {"a": jnp.arange(6) < 2}).widths["a"] == 2
    assert morph.shrink(chain, {}).resized == frozenset()


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
def test_dead_channels_fill_up_to_the_minimal_width(chain, alive, min_width, parents):
    arch = morph.shrink(chain, {"a": only(6, *alive)}, min_width=min_width)
    assert arch.groups["a"].parents == parents


def test_inexact_groups_stay_whole_unless_asked(chain):
    alive = {"a": only(6, 0, 1), "b": only(5, 2)}
    assert morph.shrink(chain, alive).widths == {"a": 2, "b": 5, "c": 7}
    assert morph.shrink(chain, alive, inexact=True).widths == {"a": 2, "b": 1, "c": 7}


def test_shrink_does_not_change_the_masks(chain):
    alive = {"a": only(6)}
    morph.shrink(chain, alive)
    assert not alive["a"].any()


def test_wrong_masks_are_refused(chain):
    with pytest.raises(KeyError, match="no channel group 'e'; known are 'a', 'b', 'c'"):
        morph.shrink(chain, {"e": only(6)})
    with pytest.raises(ValueError, match=r"alive must be bool\[6\], found bool\[5\]"):
        morph.shrink(chain, {"a": only(5)})
    with pytest.raises(ValueError, match=r"alive must be bool\[6\], found int64\[6\]"):
        morph.shrink(chain, {"a": np.arange(6)})
