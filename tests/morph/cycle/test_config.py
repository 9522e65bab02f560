"""What holds of a configuration before anything is counted."""

from dataclasses import fields

import pytest

from morph.cycle.config import CycleConfig, check_target
from morph.errors import ConfigError


def test_a_target_is_known_by_its_name_alone():
    check_target("flops + size")
    with pytest.raises(ConfigError, match=r"target: .*'flopz'.*did you mean 'flops'"):
        check_target("flopz")


def test_a_configuration_is_frozen_and_all_by_name():
    config = CycleConfig(budget=0.5)
    with pytest.raises(AttributeError):
        config.budget = 0.3
    assert all(field.kw_only for field in fields(CycleConfig))
