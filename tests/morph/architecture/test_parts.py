"""What one channel group became."""

import pytest

from morph.architecture.parts import FRESH, ResizedGroup


@pytest.mark.parametrize(
    ("parents", "unchanged"),
    [
        ((0, 1, 2), True),
        ((0, 2, 1), False),  # in another order
        ((0, 2), False),  # shrunk
        ((0, 1, 2, 2), False),  # with a clone
        ((0, 1, FRESH), False),  # as wide, and one is new
        ((), False),
    ],
)
def test_a_group_is_unchanged_only_channel_by_channel(parents, unchanged):
    group = ResizedGroup(seed_width=3, parents=parents)
    assert (group.width, group.unchanged) == (len(parents), unchanged)
