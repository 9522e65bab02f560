"""experiments.export: a bundle whose files give the network's own logits."""

import json

import jax
import numpy as np
import pytest

from experiments import compress, datasets, export, retrain
from morph.compress.coding import container
from morph.cycle.workdir import load_variables, save_variables
from morph.export import bundle, onnx

pytest.importorskip("onnxruntime")


def failure(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        export.main(["export", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_the_compressed_network_is_what_is_exported(run, capsys):
    compress.main(
        ["compress", f"--workdir={run}", "--compress=prune", "--compress_steps=4", "--sparsity=0.5"]
    )
    (run / "export").mkdir()
    (run / "export" / "network.tflite").touch()  # of a network before
    export.main(["export", f"--workdir={run}", "--export=stablehlo,onnx"])
    assert f"exporting {run}/network.morph" in capsys.readouterr().out.replace("\n", "")
    figures = json.loads((run / "exported.json").read_text())
    assert [row["name"] for row in figures["rows"]] == ["stablehlo", "onnx"]
    for row in figures["rows"]:
        assert row["logit_difference"] < 1e-5
        assert row["accuracy"] == pytest.approx(row["reference_accuracy"], abs=0.01)
    export.main(["export", f"--workdir={run}", "--check"])
    told = capsys.readouterr().out
    assert "network.onnx: as JAX gave it" in told
    assert "network.stablehlo: as JAX gave it" in told
    found = bundle.load(run / "export")
    kernel = container.load(run / "network.morph").variables["params"]["Dense_0"]["kernel"].dense()
    np.testing.assert_array_equal(found.variables["params/Dense_0/kernel"], kernel)
    images = datasets.load("digits").test_images[:5]
    assert onnx.load(run / "export" / "network.onnx")(images).shape == (5, 10)
    assert not (run / "export" / "network.tflite").exists()
    assert "Exported" in (run / "report.html").read_text()

    file = run / "architecture.json"
    retrain.main(["retrain", f"--workdir={run}", f"--architecture={file}", "--retrain_steps=0"])
    report = (run / "report.html").read_text()  # of another network than what was made before
    assert "Exported" not in report
    assert "After each step" not in report
    capsys.readouterr()
    exported = (run / "exported.json").read_bytes()
    error = failure(capsys, f"--workdir={run}", "--export=stablehlo")
    assert "network.morph was made from another network than" in error
    assert "run morph compress again, or export with --nocompressed" in error
    others = jax.tree.map(lambda leaf: leaf + 1, load_variables(run / "variables"))
    save_variables(run / "variables", others)
    assert "are of two networks" in failure(capsys, f"--workdir={run}", "--nocompressed")
    assert (run / "exported.json").read_bytes() == exported


@pytest.mark.parametrize("targets", ["", "onnx,zip"])
def test_unknown_targets_are_one_line(run, capsys, targets):
    error = failure(capsys, f"--workdir={run}", f"--export={targets}")
    assert "--export takes some of stablehlo, onnx, onnx_int8, tflite" in error


def test_a_directory_that_is_not_there_is_not_made(tmp_path, capsys):
    assert "cannot use" in failure(capsys, f"--workdir={tmp_path / 'none'}")
    assert not (tmp_path / "none").exists()
