"""One seed, several targets: what the command leaves behind, and what it says to nonsense."""

import json

import pytest

from experiments import targets
from morph.architecture.architecture import Architecture

TINY = [
    "targets",
    "--seed_network=mlp",
    "--dataset=digits",
    "--width=0.2",
    "--targets=flops,0.5*flops+0.5*activation_bytes",
    "--seed_steps=10",
    "--shrink_steps=30",
    "--budget=0.6",
    "--timing_seconds=0.1",
    "--test_examples=50",
]


def test_a_network_for_every_target(tmp_path, capsys):
    output = tmp_path / "targets.json"
    command = [*TINY, f"--workdir={tmp_path / 'run'}", f"--output={output}"]
    targets.main(command)
    printed = capsys.readouterr().out
    assert "learned for" in printed
    data = json.loads(output.read_text())
    seed, *learned = data["networks"]
    assert [one["name"] for one in learned] == ["flops", "0.5*flops+0.5*activation_bytes"]
    for one in learned:
        assert 0.5 < one["costs"][one["name"]] / seed["costs"][one["name"]] <= 0.6
        assert one["seconds"] > 0.0
    assert data["units"] == {"flops": "FLOP", "0.5*flops+0.5*activation_bytes": "x seed"}
    architecture = Architecture.load(tmp_path / "run" / "flops.json")
    assert architecture.widths == learned[0]["widths"]
    config = tmp_path / "run" / "config.json"
    older = json.loads(config.read_text())
    for name in ("penalty", "mixup", "data_fingerprint"):  # as if none before had had them
        del older[name]
    config.write_text(json.dumps(older))
    targets.main(command)  # again: nothing is trained
    assert "steps" not in capsys.readouterr().out
    assert [one["costs"] for one in json.loads(output.read_text())["networks"]] == [
        one["costs"] for one in data["networks"]
    ]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--targets=flop", "no cost 'flop'; did you mean 'flops'"),
        ("--budget=0.001", "cannot meet a budget of"),
        ("--seed_network=resnet9", "seed_network"),
        ("--dataset=fashion", "should be one of <digits|fashion_mnist"),
    ],
)
def test_nonsense(tmp_path, capsys, flag, message):
    with pytest.raises(SystemExit) as stop:
        targets.main([*TINY, f"--workdir={tmp_path}", flag])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_another_runs_workdir_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"budget": 0.1}')
    with pytest.raises(SystemExit):
        targets.main([*TINY, f"--workdir={tmp_path}"])
    assert "another configuration" in capsys.readouterr().err
