"""experiments.export: a bundle whose files give the network's own logits."""

import json

import numpy as np
import pytest

from experiments import compress, datasets, export
from morph.compress.coding import container
from morph.export import bundle, onnx

pytest.importorskip("onnxruntime")


def test_the_compressed_network_is_what_is_exported(run, capsys):
    compress.main(
        ["compress", f"--workdir={run}", "--compress=prune", "--compress_steps=4", "--sparsity=0.5"]
    )
    export.main(["export", f"--workdir={run}", "--export=stablehlo,onnx"])
    assert f"exporting {run}/network.morph" in capsys.readouterr().out.replace("\n", "")
    figures = json.loads((run / "exported.json").read_text())
    assert [row["name"] for row in figures["rows"]] == ["stablehlo", "onnx"]
    for row in figures["rows"]:
        assert row["logit_difference"] < 1e-5
        assert row["accuracy"] == pytest.approx(row["reference_accuracy"], abs=0.01)
    found = bundle.load(run / "export")
    kernel = container.load(run / "network.morph").variables["params"]["Dense_0"]["kernel"].dense()
    np.testing.assert_array_equal(found.variables["params/Dense_0/kernel"], kernel)
    images = datasets.load("digits").test_images[:5]
    assert onnx.load(run / "export" / "network.onnx")(images).shape == (5, 10)
    assert "Exported" in (run / "report.html").read_text()


@pytest.mark.parametrize("targets", ["", "onnx,zip"])
def test_unknown_targets_are_one_line(run, capsys, targets):
    with pytest.raises(SystemExit) as stop:
        export.main(["export", f"--workdir={run}", f"--export={targets}"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--export takes some of stablehlo, onnx, tflite" in error
