"""The network that a cycle ends with: its name, and which cycle's is the best."""

from dataclasses import replace

import pytest

from morph.cycle.progress import Carried
from morph.cycle.retrain import Retrain, save_final


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"budget": 0.5, "final": "scratch"}, "retrained"),
        ({"budget": 0.5, "final": "finetune"}, "fine-tuned"),
        ({"budget": 0.9, "shrink_to": 0.5, "final": "scratch"}, "expanded and retrained"),
    ],
)
def test_its_name_tells_where_its_weights_are_from(
    run_of, stretch_of, variables, same, settings, name
):
    run = run_of(**settings)
    phase = Retrain(stretch_of(run, "retrain"))
    carried = Carried(architecture=run.seed, steps=5)
    work = phase.prepare(run, carried, variables)
    carried, left = phase.finish(run, work, carried)
    same(left, variables)
    assert carried.outcomes[-1].name == name
    assert carried.outcomes[-1].steps == (7 if settings["final"] == "finetune" else 2)
    assert not carried.converged


def test_the_best_cycle_is_kept_and_patience_ends(run_of, stretch_of, variables):
    run = run_of(budget=0.9, shrink_to=0.5, expand="warm", cycles=3, patience=1)
    phase = Retrain(stretch_of(run, "retrain"))
    run.store.shrunk(run.seed, variables, [])  # as the phase before it leaves it
    carried = Carried(architecture=run.seed)
    work = phase.prepare(run, carried, variables)
    carried, _ = phase.finish(run, work, carried)
    assert run.store.architecture("best/architecture.json").report["best_cycle"] == 1
    assert not carried.converged
    worse = replace(phase, stretch=replace(phase.stretch, cycle=1))
    carried, _ = worse.finish(run, work, carried)  # no better: one cycle brought nothing
    assert carried.converged
    assert [one.name[-1] for one in carried.outcomes] == ["d", "2"]
    report = save_final(run, carried, variables).architecture.report
    assert (report["best_cycle"], report["stopped_early"]) == (1, True)
