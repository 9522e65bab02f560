"""experiments.compress: every method ends in a file that is the network, to the last bit."""

import json

import numpy as np
import pytest

from experiments import compress, datasets
from experiments.models import network_of
from morph.architecture.architecture import Architecture
from morph.compress.coding import container, symbols
from morph.compress.methods import METHODS
from morph.compress.training import accuracy_of
from morph.training.data import Batch


def launch(*arguments):
    compress.main(["compress", "--compress_steps=12", *arguments])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_the_network(run, capsys, method):
    launch(f"--workdir={run}", f"--compress={method}", "--sparsity=0.7", "--clusters=8")
    figures = json.loads((run / "compressed.json").read_text())
    file = run / "network.morph"
    last = figures["stages"][-1]
    assert last["bytes"] == file.stat().st_size
    assert [row["name"] for row in figures["stages"]][:3] == ["seed", "shrunk", "learned"]
    contents = container.load(file)
    assert contents.network["seed_network"] == "mlp"
    architecture = Architecture.from_json(contents.architecture)
    data = datasets.load("digits")
    network = network_of(contents.network["seed_network"], data, contents.network["width"])
    network, test = network.resized(architecture), Batch(data.test_images, data.test_labels)
    if method != "fixed":  # there data are rounded, too
        found = accuracy_of(network, dict(contents.variables), test)
        assert found == pytest.approx(last["accuracy"])
    assert sum(row["size_bytes"] for row in figures["layers"]) + contents.overhead == last["bytes"]
    assert "read back, and the same to the last bit" in capsys.readouterr().out
    assert "After each step" in (run / "report.html").read_text()
    if method == "deep":
        weights = next(row for row in figures["layers"] if row["path"] == "params/Dense_0/kernel")
        assert weights["weight_bits"] == 3
        assert last["parameters"] < 0.4 * figures["stages"][2]["parameters"]


def failure(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        launch(*arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_wrong_flags_are_one_line(run, capsys):
    assert "--workdir is missing" in failure(capsys)
    place = f"--workdir={run}"
    wrong = failure(capsys, place, "--compress=prune", "--sparsity=1.5")
    assert "sparsity must be in [0, 1), found 1.5" in wrong
    assert "clusters='nothing/*' matches no layer" in failure(
        capsys, place, "--clusters=nothing/*=4"
    )
    assert "16 bits with the sign" in failure(capsys, place, "--compress=fixed", "--word_length=40")
    assert not (run / "network.morph").exists()


def test_a_missing_extra_is_told_first(run, capsys, monkeypatch):
    monkeypatch.setattr(symbols, "_missing", ModuleNotFoundError("No module named 'bitarray'"))
    assert "pip install 'morph-jax[compress]'" in failure(capsys, f"--workdir={run}")


def test_nonzero_counts_what_is_stored():
    variables = {"params": {"a": np.array([0.0, 1.0]), "b": np.zeros(3)}}
    assert compress.nonzero(variables) == 1
