"""Records of what a resumed run does again are forgotten."""

import json

import pytest

from morph.architecture.architecture import Architecture
from morph.cycle.progress import Carried, Outcome, drop_records, progress_json, read_progress
from morph.errors import WorkdirError


def test_records_after_the_checkpoint_and_a_cut_off_line_are_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"phase_index": i, "step": s}) for i in (0, 1) for s in (10, 20)]
    path.write_text("\n".join(lines) + '\n{"phase_index": 1, "st')
    drop_records(path, 1, 10)
    assert path.read_text().splitlines() == lines[:3]


def test_a_broken_record_before_one_that_counts_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first, second = (json.dumps({"phase_index": 0, "step": s}) for s in (10, 20))
    for broken in ("\0\0", "5", '{"step": 10}', '{"phase_index": "0", "step": 3}'):
        path.write_text(f"{first}\n{broken}\n{second}\n")
        with pytest.raises(WorkdirError, match=r"line 2 of .* is not a record"):
            drop_records(path, 0, 20)
        assert second in path.read_text()
        drop_records(path, 0, 10)
        assert path.read_text() == f"{first}\n"
    path.write_text(first)  # cut off before its end of line
    drop_records(path, 0, 10)
    assert path.read_text() == f"{first}\n"


def test_an_outcome_of_another_version():
    told = {"name": "seed", "accuracy": 0.5, "cost": 1.0, "flops": 1.0, "parameters": 3}
    assert Outcome.of({**told, "widths": {}, "steps": 2}).metrics == {}
    with pytest.raises(WorkdirError, match="does not know the later of a network's outcome"):
        Outcome.of({**told, "widths": {}, "steps": 2, "later": 1})
    with pytest.raises(WorkdirError, match=r"is incomplete: .*'widths' and 'steps'"):
        Outcome.of(told)


def test_progress_of_another_version_is_one_error():
    carried = Carried(architecture=Architecture(groups={}, variables={}), steps=3)
    told = progress_json(1, 20, carried)
    assert read_progress(json.loads(json.dumps(told))) == (1, 20, carried)
    for other in ({**told, "carried": 5}, {"phase": 1, "step": 20}):
        with pytest.raises(WorkdirError, match=r"does not tell where the run was .* another vers"):
            read_progress(other)
