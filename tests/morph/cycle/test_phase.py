"""What most phases do for each of the three verbs."""

import json

import jax
import numpy as np

from morph.cycle.phase import (
    arrays_of,
    measured,
    started,
    steps_seen,
    teacher_of,
    trained,
    waiting,
)
from morph.cycle.progress import Carried
from morph.cycle.saved import Saved, named
from morph.cycle.schedule import Stretch


def test_a_stretch_trains_tells_and_goes_on_from_a_checkpoint(run_of, stretch_of, same):
    run = run_of(seed_steps=3)
    stretch = stretch_of(run, "seed")
    work = started(run, stretch, run.seed, None)
    first = work.state.params
    steps, kept = [], None
    for step in trained(run, stretch, work, 0):
        steps.append(step)
        if step == 2:
            kept = {name: np.asarray(leaf) for name, leaf in named(arrays_of(work.state))}
    assert steps == [0, 1, 2, 3]
    assert not np.array_equal(first["Dense_0"]["kernel"], work.state.params["Dense_0"]["kernel"])
    lines = (run.store.workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(r["phase"], r["step"]) for r in records] == [("seed", 1), ("seed", 2), ("seed", 3)]
    assert all(r["loss"] > 0.0 and 0.0 <= r["test_accuracy"] <= 1.0 for r in records)

    again = started(run, stretch, run.seed, None)
    again.restore(Saved(number=1, arrays=kept, progress={}), run.layout)
    # Where they belong, also if no step is left: a phase may have been saved at its end.
    there = jax.tree.leaves(run.layout.abstract(again.state))
    for leaf, place in zip(jax.tree.leaves(again.state), there, strict=True):
        assert leaf.sharding == place.sharding
    assert list(trained(run, stretch, again, 2)) == [2, 3]
    same(arrays_of(again.state), arrays_of(work.state))

    carried, left = measured(run, stretch, "seed", work, Carried(architecture=run.seed))
    same(left, work.state.learned)
    (outcome,) = carried.outcomes
    assert (outcome.name, outcome.steps, carried.steps) == ("seed", 3, 3)
    assert outcome.accuracy == records[-1]["test_accuracy"]


def test_weights_that_go_on_have_seen_the_steps_before(run_of):
    carried = Carried(architecture=run_of().seed, steps=5)
    assert steps_seen(Stretch("shrink", 1, 0, 3, warm=True), carried) == 8
    assert steps_seen(Stretch("retrain", 2, 0, 3), carried) == 3


def test_a_phase_that_trains_nothing_leaves_variables_as_they_are(run_of, variables, same):
    run = run_of()
    work = waiting(run, run.seed, variables)
    same(work.state.variables, variables)
    assert jax.tree.leaves(work.state.opt_state) == []


def test_only_a_run_that_distills_has_a_teacher(run_of, variables, same):
    run = run_of(distill=0.5)
    run.store.teacher(variables)
    same(teacher_of(run), variables)
    assert teacher_of(run_of()) is None
