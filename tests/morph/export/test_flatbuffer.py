"""Files that are none."""

import numpy as np
import pytest

from morph.export import ExportError, edge_tpu, tflite

pytest.importorskip("ai_edge_litert")


pytest.importorskip("ai_edge_quantizer")


pytest.importorskip("litert_converter")


@pytest.mark.wrong_arrays
def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"no such thing")
    with pytest.raises(ExportError, match="not a TFLite file"):
        edge_tpu.placement(tmp_path / "a.tflite")
    with pytest.raises(ExportError, match="cannot read"):
        tflite.load(tmp_path / "a.tflite")
    whole = np.ones((1, 2), np.int32)
    with pytest.raises(ExportError, match="floats"):
        tflite.to_tflite(lambda v, x: x, 0, whole, tmp_path / "b.tflite", calibration=[[1, 2]])
