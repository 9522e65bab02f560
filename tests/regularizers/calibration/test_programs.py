import itertools

import pytest

from regularizers.calibration.measure import work_of
from regularizers.calibration.programs import designed
from regularizers.costs.calibrated import amounts
from regularizers.costs.form import EXACT


@pytest.fixture(scope="module")
def designed_works():
    return [work_of(program) for program in designed()]


def test_designed_programs_have_names_of_their_own():
    names = [program.name for program in designed()]
    assert len(set(names)) == len(names)
    assert 100 <= len(names) <= 200


def test_designed_programs_cover_every_kind(designed_works):
    seen = set()
    for work in designed_works:
        found = amounts(work, EXACT, 1e6)
        seen |= {name.split(":")[0] for name, column in found.items() if column.any()}
    kinds = {name.split(":")[0] for name in amounts(designed_works[0], EXACT, 1e6)}
    assert seen == kinds


def test_neighbours_in_the_designed_set_are_of_different_families():
    """So that no fold takes a whole family out."""
    families = [program.name.split()[0] for program in designed()]
    for fold, family in itertools.product(range(5), ("conv", "dense", "tokens", "residual")):
        inside = [f for i, f in enumerate(families) if i % 5 == fold]
        assert 0 < inside.count(family) < families.count(family)
