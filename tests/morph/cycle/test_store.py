"""What a run writes and reads again."""

import json

import pytest

from morph.cycle.stamp import check_pair
from morph.errors import WorkdirError


def test_networks_are_written_with_their_report_and_read_again(run_of, variables, same):
    run = run_of(target="size")
    store, narrow = run.store, run.seed.with_parents({"Dense_0": (0, 2, 5)})
    outcome = run.measure.outcome("narrow", narrow, {"accuracy": 0.5}, 7)
    small = narrow.take(variables)
    written = store.final(narrow, small, [outcome], best_cycle=1)
    read = store.architecture("architecture.json")
    assert read == written
    assert read.report["cost"] == 5 * 3 + 3 + 3 * 3 + 3
    assert (read.report["best_cycle"], read.report["outcomes"][0]["steps"]) == (1, 7)
    same(store.variables("variables"), small)
    check_pair(store.workdir / "architecture.json", read, small)
    with pytest.raises(WorkdirError, match="are of two networks"):
        check_pair(store.workdir / "architecture.json", read, variables)

    store.shrunk(run.seed, variables, [])
    assert store.architecture("shrunk.json").widths == {"Dense_0": 6}
    store.keep_best()
    store.final(run.seed, variables, [])
    assert store.architecture("architecture.json").widths == {"Dense_0": 6}
    store.take_best()
    assert store.architecture("architecture.json") == written
    same(store.variables("variables", small), small)


def test_records_are_lines_and_those_that_come_again_are_forgotten(run_of):
    store = run_of().store
    for step in (1, 2, 3):
        store.record({"phase": "seed", "phase_index": 0, "step": step, "loss": 0.5})
    store.drop_records(0, 2)
    lines = (store.workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
