"""Agreement is counted; a missing package names its command."""

import numpy as np
import pytest

from morph.errors import MissingExtraError
from morph.export import Agreement, ExportError, bundle, compare, onnx, stablehlo, tflite

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


@pytest.mark.wrong_arrays
def test_agreement_counts_by_hand():
    reference = np.asarray([[1.0, 3.0, 2.0], [4.0, 0.0, 1.0]])
    found = compare(reference, reference[:, [0, 2, 1]], np.asarray([1, 0]), top=(1, 2))
    assert found == Agreement(
        examples=2,
        logit_difference=0.25,
        same_class=0.5,
        accuracy={1: 0.5, 2: 1.0},
        reference_accuracy={1: 1.0, 2: 1.0},
    )
    assert found.points == 50.0
    pixels = compare(reference[None], reference[None], np.asarray([[1, -1]]))
    assert pixels.accuracy == {
        1: compare(reference[:1], reference[:1], np.asarray([1])).accuracy[1]
    }
    numbers = compare(reference, reference, None)
    assert (numbers.logit_difference, numbers.same_class, numbers.points) == (0.0, None, 0.0)
    with pytest.raises(ExportError, match="two arrays of outputs"):
        compare(reference, reference[:1], np.asarray([1, 0]))
    with pytest.raises(ExportError, match="as many labels"):
        compare(reference, reference, np.asarray([1]))
