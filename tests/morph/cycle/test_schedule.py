"""The learning rate of a run goes on over the phases that share weights."""

import itertools
from dataclasses import replace

from morph.cycle.config import CycleConfig
from morph.cycle.schedule import rate_of, stretches_of
from morph.training.optimizers import rate_schedule


def test_a_schedule_of_the_run_goes_on_over_the_phases_that_share_weights():
    warm = CycleConfig(
        schedule="run",
        expand="warm",
        final="finetune",
        cycles=2,
        baselines="whole,uniform",
        seed_steps=7,
        shrink_steps=5,
        retrain_steps=4,
    )

    def rates(config):
        phases = enumerate(stretches_of(config))
        return [[float(rate_of(config, i)(n)) for n in range(phase.steps)] for i, phase in phases]

    def one(peak, steps):
        return [float(rate_schedule(peak, steps)(n)) for n in range(steps)]

    whole, uniform, *chain = rates(warm)
    assert whole == uniform == one(warm.learning_rate, 7 + 2 * (5 + 4))
    assert list(itertools.chain(*chain)) == one(warm.learning_rate, 7 + 2 * (5 + 4))
    *_, shrink, retrain = rates(replace(warm, final="scratch"))
    assert retrain == one(warm.learning_rate, 4)
    assert shrink[-1] == one(warm.learning_rate, 7 + 5 + 4 + 5)[-1]
    assert len(rates(replace(warm, final="scratch"))[0]) == 4
    given = rates(replace(warm, seed_steps=0, baselines=""))
    assert list(itertools.chain(*given)) == one(warm.shrink_learning_rate, 2 * (5 + 4))
    assert rates(replace(warm, schedule="phase"))[3] == one(warm.shrink_learning_rate, 5)
