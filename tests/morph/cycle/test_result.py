"""Which architecture belongs to which outcome, at the end of a run."""

from dataclasses import replace

from morph.cycle.measure import SHRUNK, architectures_of
from morph.cycle.result import Result


def test_every_network_that_is_known_has_its_architecture(run_of):
    run = run_of(target="size")
    shrunk = run.seed.with_parents({"Dense_0": (0, 2)})
    final = run.seed.with_parents({"Dense_0": (0, 2, 3)})

    def outcome(name, architecture, **metrics):
        return run.measure.outcome(name, architecture, {"accuracy": 0.5, **metrics}, 7)

    outcomes = (
        outcome("uniform", run.seed.with_parents({"Dense_0": (0, 1, 2, 3)})),
        outcome("seed", run.seed),
        outcome(f"{SHRUNK}", run.seed.with_parents({"Dense_0": (5,)})),  # of a cycle before
        outcome(f"{SHRUNK} 2", shrunk),
        outcome("expanded and fine-tuned 2", final, accuracy=0.75),
    )
    found = architectures_of(run.seed, shrunk, final, outcomes)
    widths = {name: one.widths["Dense_0"] for name, one in found.items()}
    assert widths == {"uniform": 4, "seed": 6, f"{SHRUNK} 2": 2, "expanded and fine-tuned 2": 3}
    result = Result(
        architecture=replace(final, report={}),
        shrunk=shrunk,
        variables={},
        network=run.network(final),
        outcomes=outcomes,
        architectures=found,
    )
    assert result.against_seed["accuracy"] == 0.25
