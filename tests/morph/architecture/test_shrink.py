"""Shrink: which channels stay, and in which order."""

import jax.numpy as jnp
import numpy as np
import pytest

import morph
from morph.budget.trim import allowed_widths


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


@pytest.mark.parametrize(
    ("alive", "round_to", "min_width", "width"),
    [
        (1, 2, 1, 2),
        (3, 2, 1, 4),
        (4, 2, 1, 4),
        (5, 4, 1, 6),
        (0, 4, 1, 4),
        (2, 6, 1, 2),
        (1, 2, 3, 4),
    ],
)
def test_dead_channels_fill_up_to_a_multiple(chain, alive, round_to, min_width, width):
    # As the budgets round: of a group that is no wider than `round_to`, every width is allowed.
    arch = morph.shrink(
        chain, {"a": np.arange(6) >= 6 - alive}, round_to=round_to, min_width=min_width
    )
    parents = arch.groups["a"].parents
    assert len(parents) == width
    assert set(range(6 - alive, 6)) <= set(parents)
    assert width in allowed_widths(6, min_width, round_to)


def test_a_multiple_of_nothing_is_refused(chain):
    with pytest.raises(ValueError, match="round_to must be a whole number of at least 1, found 0"):
        morph.shrink(chain, {}, round_to=0)


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
