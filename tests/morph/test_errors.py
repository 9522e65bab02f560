"""A package that is missing names the command that installs it."""

import pytest

from morph.errors import MissingExtraError
from morph.export import bundle, onnx, stablehlo, tflite

pytest.importorskip("flatbuffers")


@pytest.mark.parametrize(
    ("module", "write"),
    [
        (stablehlo, lambda: stablehlo.to_stablehlo(len, None, None, "")),
        (onnx, lambda: onnx.to_onnx(len, None, None, "")),
        (tflite, lambda: tflite.to_tflite(len, None, None, "", calibration=())),
        (bundle, lambda: bundle.load("")),
    ],
)
@pytest.mark.wrong_arrays
def test_a_missing_package_names_the_command(module, write, monkeypatch):
    monkeypatch.setattr(module, "_missing", ModuleNotFoundError("No module named 'that'"))
    with pytest.raises(MissingExtraError, match=r"'that'.*pip install 'morph-jax\[export\]'"):
        write()
