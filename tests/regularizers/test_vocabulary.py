"""The names of costs and penalties are those of their tables, in their order."""

from regularizers import vocabulary
from regularizers.named import COSTS
from regularizers.objective.penalties import PENALTIES


def test_names_are_those_of_the_tables():
    assert tuple(COSTS) == vocabulary.COSTS
    assert tuple(PENALTIES) == vocabulary.PENALTIES
