"""Rebuilding from the JSON: trained anew, continued, chained, and refused where it does not fit."""

import json
from dataclasses import replace

import flax.linen as nn
import numpy as np
import pytest

import morph
import regularizers as reg
from experiments import retrain, subject
from experiments.report import read_run
from morph.cycle.workdir import load_variables, locked


class Own(nn.Module):
    """A seed network of somebody else's."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(15)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


@pytest.fixture
def file(make_run):
    return make_run("run") / "architecture.json"


def launch(tmp_path, *arguments):
    workdir = tmp_path / "out"
    retrain.main(["retrain", f"--workdir={workdir}", *arguments])
    return workdir


def failure(capsys, tmp_path, *arguments):
    with pytest.raises(SystemExit) as stop:
        launch(tmp_path, *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert not (tmp_path / "out" / "results.json").exists()
    return error


def test_a_network_is_rebuilt_trained_and_goes_on(file, tmp_path):
    first = launch(tmp_path, f"--architecture={file}", "--retrain_steps=20", "--seed=3")
    run = read_run(first)
    assert run.final["widths"] == {"Dense_0": 10, "Dense_1": 3}
    assert run.records[-1]["loss"] < run.records[0]["loss"]
    assert [outcome["name"] for outcome in run.outcomes] == ["seed", "retrained"]
    assert run.config["seed"] == 3
    assert run.config["batch_size"] == 32  # as the network was learned
    assert (first / "report.html").exists()
    variables = load_variables(first / "variables")
    assert variables["params"]["Dense_0"]["kernel"].shape == (64, 10)

    again = first / "architecture.json"
    arguments = [f"--architecture={again}", f"--variables={first / 'variables'}"]
    second = tmp_path / "second"
    retrain.main(["retrain", *arguments, f"--workdir={second}", "--retrain_steps=0"])
    assert read_run(second).final["accuracy"] == run.final["accuracy"]


def test_one_at_a_time_in_a_directory(file, tmp_path, capsys):
    with locked(tmp_path / "out"):
        assert "another run is using" in failure(capsys, tmp_path, f"--architecture={file}")


def rewritten(file, place, change):
    written = json.loads(file.read_text())
    written.pop("sha256")
    change(written["report"]["config"])
    place.write_text(json.dumps(written))
    return place


def test_what_an_older_version_did_not_write_is_as_by_default(file, tmp_path):
    def older(config):
        config.pop("batch_size")

    old = rewritten(file, tmp_path / "old.json", older)
    run = read_run(launch(tmp_path, f"--architecture={old}", "--retrain_steps=1"))
    assert run.config["batch_size"] == morph.CycleConfig().batch_size != 32


def test_settings_of_a_newer_version_are_named(file, capsys, tmp_path):
    new = rewritten(file, tmp_path / "new.json", lambda config: config.update(later=1, more=2))
    error = failure(capsys, tmp_path, f"--architecture={new}")
    assert "does not know the settings later, more" in error


def test_architectures_chain(file, tmp_path):
    first = morph.Architecture.load(file)
    step = {
        name: replace(group, seed_width=group.width, parents=tuple(range(1, group.width)))
        for name, group in first.groups.items()
    }
    later = tmp_path / "later.json"
    variables = {
        path: replace(variable, shape=first.shape(path))
        for path, variable in first.variables.items()
    }
    replace(first, groups=step, variables=variables).save(later)
    chained = retrain.chained([str(file), str(later)])
    assert chained.widths == {"Dense_0": 9, "Dense_1": 2}
    assert chained.groups["Dense_0"].seed_width == 15
    assert chained.groups["Dense_1"].parents == first.groups["Dense_1"].parents[1:]


def test_a_seed_network_of_ones_own(tmp_path, monkeypatch, capsys):
    model, x = Own(), np.zeros((1, 8, 8, 1), np.float32)
    monkeypatch.setattr(subject, "find_attribute", lambda target: Own)
    graph = reg.trace_channels(model.apply, model.init(retrain.jax.random.key(0), x), x)
    file = tmp_path / "own.json"
    morph.shrink(graph, {"Dense_0": np.arange(15) < 6}).save(file)
    arguments = [f"--architecture={file}", "--model=mine:Own", "--retrain_steps=10"]
    assert "names no dataset; give --dataset" in failure(capsys, tmp_path, *arguments)
    workdir = launch(tmp_path, *arguments, "--dataset=digits")
    assert read_run(workdir).final["widths"] == {"Dense_0": 6}


def test_what_does_not_fit_is_told(file, tmp_path, capsys):
    def told(*arguments):
        return failure(capsys, tmp_path, f"--architecture={file}", *arguments)

    error = told("--width=0.1")
    assert "of another seed network than mlp: params/Dense_0/" in error
    assert "[15] in the architecture, [30] in mlp" in error
    assert "in the architecture, none in cnn" in told("--seed_network=cnn")
    assert "is no directory of saved variables" in told(f"--variables={tmp_path / 'none'}")
    assert "give one of them" in told("--seed_network=mlp", "--model=a:b")
    assert "cannot chain architectures" in told(f"--architecture={file}")
    other = file.with_name("other.json")
    other.write_text(json.dumps({**json.loads(file.read_text()), "version": 99}))
    assert "newer version" in failure(capsys, tmp_path, f"--architecture={other}")
    assert "--architecture is missing" in failure(capsys, tmp_path)


def test_variables_of_other_widths_are_refused(file, tmp_path, capsys):
    retrain.save_variables(
        tmp_path / "whole", {"params": {"Dense_0": {"kernel": np.zeros((64, 15), np.float32)}}}
    )
    error = failure(capsys, tmp_path, f"--architecture={file}", f"--variables={tmp_path / 'whole'}")
    assert "do not fit the architecture" in error
