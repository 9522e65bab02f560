"""The seed network is trained, or given."""

from morph.cycle.progress import Carried
from morph.cycle.seed import Seed


def test_what_is_given_is_measured_and_not_trained(run_of, stretch_of, variables, same):
    run = run_of(start=variables, seed_steps=0, distill=0.5)
    phase = Seed(stretch_of(run, "seed"))
    carried = Carried(architecture=run.seed)
    work = phase.prepare(run, carried, None)
    assert list(phase.train(run, work, 0)) == []
    carried, left = phase.finish(run, work, carried)
    same(left, variables)
    assert [(one.name, one.steps) for one in carried.outcomes] == [("seed", 0)]
    same(run.store.variables("seed_variables"), variables)  # it will teach


def test_without_it_is_drawn_and_kept_only_to_teach(run_of, stretch_of, same):
    run = run_of()
    phase = Seed(stretch_of(run, "seed"))
    carried = Carried(architecture=run.seed)
    work = phase.prepare(run, carried, None)
    same(work.state.variables, run.drawn(run.seed, 0))
    phase.finish(run, work, carried)
    assert not (run.store.workdir / "seed_variables").exists()
