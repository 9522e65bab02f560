"""What is told of every run."""

import json

from morph.facts import facts_of, own_command, write_facts


def test_what_it_ran_on_stands_beside_what_came_out(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "a b"])
    assert own_command() == "python train.py 'a b'"
    write_facts(tmp_path, facts_of(own_command(), 1.234, {"outcomes": [3]}))
    told = json.loads((tmp_path / "results.json").read_text())
    assert list(told)[:3] == ["command", "seconds", "outcomes"]
    assert told["seconds"] == 1.2
    assert told["versions"].keys() == {"jax", "flax", "optax", "numpy"}
