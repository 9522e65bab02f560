"""A setting of another type than its field is refused before anything runs."""

import pytest

from morph.cycle.checks import check_training
from morph.cycle.config import CycleConfig
from morph.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed_steps": 4.5}, "seed_steps must be int, found 4.5"),
        ({"seed_steps": "4"}, "seed_steps must be int, found '4'"),
        ({"batch_size": 16.0}, "batch_size must be int, found 16.0"),
        ({"cycles": True}, "cycles must be int, found True"),
        ({"learning_rate": float("nan")}, "learning_rate must be float, found nan"),
        ({"budget": float("nan")}, "budget must be float or str, found nan"),
        ({"warmup_steps": 0.5}, "warmup_steps must be int or None, found 0.5"),
    ],
)
def test_a_setting_of_another_type_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_training(CycleConfig(**changes))


def test_the_defaults_and_whole_numbers_for_floats_are_taken():
    check_training(CycleConfig())
    check_training(CycleConfig(learning_rate=1, budget="50%"))
