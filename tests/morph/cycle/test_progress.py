"""Records of what a resumed run does again are forgotten."""

import json

import pytest

from morph.cycle.progress import Outcome, drop_records
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
        with pytest.raises(WorkdirError, match=r"line 2 of .* is no record"):
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
    with pytest.raises(WorkdirError, match=r"is not whole: .*'widths' and 'steps'"):
        Outcome.of(told)
