"""The shrunk network is widened back to the budget, or left."""

import numpy as np
import pytest

from morph.cycle.expand import Expand
from morph.cycle.progress import Carried

HALF = {"Dense_0": (0, 2, 5)}


def widened(run, stretch_of, variables, *, warm):
    shrunk = run.seed.with_parents(HALF)
    phase = Expand(stretch_of(run, "shrink"), warm)
    carried = Carried(architecture=shrunk)
    work = phase.prepare(run, carried, shrunk.take(variables))
    assert list(phase.train(run, work, 0)) == []
    return phase.finish(run, work, carried)


@pytest.mark.parametrize("warm", [False, True])
def test_it_is_as_wide_as_the_budget_allows(run_of, stretch_of, variables, same, warm):
    run = run_of(budget=0.9, shrink_to=0.5, target="size")
    carried, left = widened(run, stretch_of, variables, warm=warm)
    (width,) = carried.architecture.widths.values()
    cost = run.measure.prices.at(carried.architecture)["cost"]
    assert width == 5  # 9 parameters a channel, and 3 biases, of 57
    assert cost == 9 * width + 3 <= run.budget < cost + 9
    kernel = np.asarray(variables["params"]["Dense_0"]["kernel"])[:, [0, 2, 5]]
    found = np.asarray(left["params"]["Dense_0"]["kernel"])
    if warm:  # every channel is one of those that were left
        assert all((kernel == channel[:, None]).all(0).any() for channel in found.T)
    else:
        number = stretch_of(run, "retrain").number
        same(left, run.drawn(carried.architecture, number))


def test_without_a_narrower_goal_nothing_is_widened(run_of, stretch_of, variables, same):
    run = run_of(budget=0.5)
    carried, left = widened(run, stretch_of, variables, warm=True)
    assert carried.architecture == run.seed.with_parents(HALF)
    same(left, carried.architecture.take(variables))
