"""What a shrink phase begins with, and what it ends with."""

import numpy as np

from morph.cycle.progress import Carried
from morph.cycle.shrink import Shrink


def test_it_ends_at_the_goal_with_the_function_of_the_masked_network(
    run_of, stretch_of, variables, same
):
    run = run_of(budget=0.9, shrink_to=0.55, target="size", penalty="group_lasso")
    phase = Shrink(stretch_of(run, "shrink"))
    carried = Carried(architecture=run.seed, steps=4)
    work = phase.prepare(run, carried, variables)
    assert work.budget.seen.cost_ratio == 1.0  # it looked before the first step
    carried, small = phase.finish(run, work, carried)
    shrunk = carried.architecture
    assert shrunk.widths == {"Dense_0": 3}  # 9 parameters a channel, and 3 biases, of 57
    (outcome,) = carried.outcomes
    assert (outcome.name, outcome.steps, outcome.cost) == ("shrunk", 6, 9 * 3 + 3)
    assert outcome.logit_difference < 1e-6
    assert outcome.same_predictions
    same(small, shrunk.take(variables))
    assert run.store.architecture("shrunk.json").widths == shrunk.widths
    same(run.store.variables("shrunk_variables"), small)
    assert np.isfinite(small["params"]["Dense_1"]["kernel"]).all()
