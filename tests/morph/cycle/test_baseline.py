"""What the learned network is compared with."""

import pytest

from morph.cycle.baseline import Baseline
from morph.cycle.progress import Carried


@pytest.mark.parametrize(
    ("kind", "name", "width"), [("whole", "seed, trained as long", 6), ("uniform", "uniform", 3)]
)
def test_whole_or_uniformly_narrower(run_of, stretch_of, same, kind, name, width):
    run = run_of(budget=0.55, target="size", baselines="uniform,whole")
    phase = Baseline(stretch_of(run, kind))
    before = Carried(architecture=run.seed)
    work = phase.prepare(run, before, None)
    assert work.architecture.widths == {"Dense_0": width}
    carried, left = phase.finish(run, work, before)
    (outcome,) = carried.outcomes
    assert (outcome.name, outcome.cost) == (name, 9 * width + 3)
    assert carried.architecture == run.seed  # nothing of it is handed on
    same(left, run.drawn(run.seed, phase.stretch.number + 1))
