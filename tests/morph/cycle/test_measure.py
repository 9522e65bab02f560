"""What networks are worth and cost."""

import pytest

from morph.cycle.measure import BASELINES, NAMES, SHRUNK, TENSORIZED, named


def test_an_outcome_is_priced(run_of):
    run = run_of(target="size")
    narrow = run.seed.with_parents({"Dense_0": (0, 2, 5)})
    found = run.measure.outcome("narrow", narrow, {"accuracy": 0.5, "nats": 2.0}, 7)
    parameters = 5 * 3 + 3 + 3 * 3 + 3
    assert (found.cost, found.parameters, found.steps) == (parameters, parameters, 7)
    assert found.flops == 2 * (5 * 3 + 3 * 3)
    assert (found.accuracy, found.metrics["nats"]) == (0.5, 2.0)
    assert found.widths == narrow.widths
    assert run.measure.outcome("", narrow, {"nats": 2.0}, 0).accuracy is None


@pytest.mark.parametrize(("metric", "sign"), [("accuracy", 1.0), ("mean_squared_error", -1.0)])
def test_patience_goes_by_the_last_network_of_each_cycle(run_of, metric, sign):
    run = run_of(metrics=f"{metric},log_likelihood")
    names = [*NAMES.values(), *BASELINES, SHRUNK, TENSORIZED, named(SHRUNK, 1)]
    ends = ["retrained", named("retrained", 1)]
    outcomes = [
        run.measure.outcome(name, run.seed, {metric: value, "log_likelihood": -1.0}, 0)
        for value, name in enumerate([*names, *ends])
    ]
    assert run.measure.firsts(outcomes) == [sign * len(names), sign * (len(names) + 1)]


def test_names_are_numbered_from_the_second_cycle_on():
    assert [named("shrunk", cycle) for cycle in range(3)] == ["shrunk", "shrunk 2", "shrunk 3"]
