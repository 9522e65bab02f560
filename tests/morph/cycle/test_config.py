"""A configuration whose settings make no sense is refused by name."""

import pytest

from morph.cycle.config import check_target
from morph.errors import ConfigError


def test_a_target_is_a_cost_by_name_or_a_sum_of_some():
    check_target("flops+size")
    with pytest.raises(ConfigError, match=r"target: .*'flopz'.*did you mean 'flops'"):
        check_target("flopz")
