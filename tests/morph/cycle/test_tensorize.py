"""Kernels become tensor networks; what that leaves, and what it costs."""

from morph.cycle.progress import Carried
from morph.cycle.tensorize import Factorize, Tensorize
from morph.kernels.factorized import Factorized


def test_the_factorized_network_is_measured_and_its_cores_are_handed_on(
    run_of, stretch_of, variables, same
):
    run = run_of(tensorize="svd", tensorize_budget=0.7, tensorize_steps=2, target="size")
    stretch = stretch_of(run, "tensorize")
    phase, carried = Factorize(stretch), Carried(architecture=run.seed, steps=4)
    work = phase.prepare(run, carried, variables)
    assert list(phase.train(run, work, 0)) == []
    carried, cores = phase.finish(run, work, carried)
    (outcome,) = carried.outcomes
    assert (outcome.name, outcome.steps) == ("tensorized", 4)
    assert 3 + 6 < outcome.cost <= 0.7 * 57
    assert isinstance(cores["params"]["Dense_0"]["kernel"], Factorized)
    assert carried.architecture.factorized.keys() <= {
        "params/Dense_0/kernel", "params/Dense_1/kernel",
    }  # fmt: skip

    phase = Tensorize(stretch)
    work = phase.prepare(run, carried, cores)
    carried, left = phase.finish(run, work, carried)
    same(left, cores)
    assert carried.outcomes[-1].name == "tensorized and fine-tuned"
    assert carried.outcomes[-1].steps == 4 + 2
    assert carried.outcomes[-1].accuracy == outcome.accuracy
