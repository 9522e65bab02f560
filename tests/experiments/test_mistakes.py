"""What a person can mistype or lack, for every command: one line, and exit status 2."""

import sys

import pytest

from experiments import (
    compare,
    compress,
    dataset_files,
    datasets,
    export,
    inspect,
    prune,
    retrain,
    run,
    sweep,
    targets,
)
from experiments.pictures import plots
from experiments.report import __main__ as report
from morph.errors import MissingExtraError

# The command, and what names a file that is not there.
COMMANDS = {
    "run": (run.main, ["--seed_network=mlp", "--dataset=mnist", "--data_dir={}"]),
    "sweep": (sweep.main, ["--seed_network=mlp", "--dataset=mnist", "--data_dir={}"]),
    "retrain": (retrain.main, ["--architecture=mine={}", "--seed_network=mlp", "--dataset=digits"]),
    "targets": (targets.main, ["--dataset=mnist", "--data_dir={}"]),
    "prune": (prune.main, ["--seed_network=mlp", "--dataset=digits", "--start={}"]),
    "compress": (compress.main, ["--workdir={}"]),
    "export": (export.main, ["--workdir={}"]),
    "inspect": (inspect.main, ["--seed_network=mlp", "--plot={}/nowhere/a.png"]),
    "compare": (compare.main, ["{}"]),
    "report": (report.main, ["{}"]),
}


@pytest.fixture
def ended(monkeypatch, capsys, tmp_path):
    """What a command that cannot work prints on its way to exit status 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MORPH_DATA_DIR", raising=False)

    def launch(main, *arguments):
        argv = ["command", *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as stop:
            main(argv)
        error = capsys.readouterr().err
        assert stop.value.code == 2, error
        return error

    return launch


@pytest.mark.parametrize("main", [main for main, _ in COMMANDS.values()], ids=COMMANDS)
def test_a_flag_that_is_none_is_one_line(main, ended):
    error = ended(main, "--bugdet=0.5")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "bugdet" in error


@pytest.mark.parametrize(("main", "arguments"), COMMANDS.values(), ids=COMMANDS)
def test_a_file_that_is_not_there_is_one_line(main, arguments, ended, tmp_path, monkeypatch):
    def nowhere(name, data_dir=None):
        raise datasets.DatasetNotFoundError(f"{name}: looked for in {data_dir}")

    if any("--dataset=mnist" in argument for argument in arguments):
        monkeypatch.setattr(datasets, "load", nowhere)
    gone = str(tmp_path / "gone")
    error = ended(main, *(argument.format(gone) for argument in arguments))
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "gone" in error
    assert "Traceback" not in error


def lacking(name):
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("main", [run.main, sweep.main], ids=["run", "sweep"])
def test_without_scikit_learn_digits_are_one_line(main, ended, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    error = ended(main, "--seed_network=mlp", "--dataset=digits")
    assert error.startswith("error: the digits data set needs packages that are not installed")
    assert error.endswith("pip install 'morph-jax[data]'\n")
    assert error.count("\n") == 1


def test_without_matplotlib_a_plot_is_one_line(ended, monkeypatch):
    monkeypatch.setattr(plots, "_missing", lacking("matplotlib"))
    error = ended(inspect.main, "--seed_network=mlp", "--plot=costs.png")
    assert error.startswith("error: --plot=costs.png: a plot needs packages that are not installed")
    assert error.endswith("pip install 'morph-jax[plots]'\n")
    assert error.count("\n") == 1


def test_without_pillow_a_picture_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(dataset_files, "_missing", lacking("PIL"))
    with pytest.raises(MissingExtraError, match=r"reading pictures needs .*morph-jax\[data\]"):
        dataset_files.read_rgb(tmp_path / "a.png", (32, 32))
