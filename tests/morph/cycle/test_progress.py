"""Records of what a resumed run does again are forgotten."""

import json

from morph.cycle.progress import drop_records


def test_records_after_the_checkpoint_and_a_cut_off_line_are_forgotten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"phase_index": i, "step": s}) for i in (0, 1) for s in (10, 20)]
    path.write_text("\n".join(lines) + '\n{"phase_index": 1, "st')
    drop_records(path, 1, 10)
    assert path.read_text().splitlines() == lines[:3]
