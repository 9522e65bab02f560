"""Settings that a road has no use for are refused there, with the reason."""

from dataclasses import fields

import pytest

from morph.cycle.config import CycleConfig
from morph.cycle.unused import (
    UNUSED_BY_RETRAIN,
    UNUSED_BY_SWEEP,
    UNUSED_BY_TARGETS,
    check_unused,
)
from morph.errors import ConfigError


@pytest.mark.parametrize("unused", [UNUSED_BY_SWEEP, UNUSED_BY_TARGETS, UNUSED_BY_RETRAIN])
def test_all_are_settings_and_have_a_reason(unused):
    assert set(unused) <= {setting.name for setting in fields(CycleConfig)}
    assert all(unused.values())


def test_only_what_is_not_as_by_default_is_refused():
    unused = {"budget": "there are several", "cycles": "it runs once"}
    check_unused(CycleConfig(seed_steps=5), unused)
    with pytest.raises(ConfigError, match="cycles is 3, but has no effect here: it runs once"):
        check_unused(CycleConfig(cycles=3), unused)
