"""What activations of a file span on data, and the part of it that is worth 8 bits."""

import numpy as np
import pytest

from morph.export import onnx_ranges, to_onnx

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("batch", [None, 3])
def test_ranges_hold_all_numbers_and_narrow_ones_most(tmp_path, batch):
    kernel = RNG.normal(size=(5, 4)).astype(np.float32)
    x = RNG.normal(size=(3000, 5)).astype(np.float32)
    x[1500, 0] = 60.0
    path = to_onnx(lambda w, x: x @ w, kernel, x[:3], tmp_path / "a.onnx").path
    found = onnx_ranges.whole(path, x, ["input"], batch, ["MatMul"])
    (result,) = found.keys() - {"input"}
    for name, value in {"input": x, result: x @ kernel}.items():
        np.testing.assert_allclose(found[name], (value.min(), value.max()), rtol=1e-5)
    less = onnx_ranges.narrow(path, x, ["input"], batch, found, ["MatMul"])
    assert less.keys() == found.keys()
    assert less[result] == found[result]  # no product follows
    low, high = less["input"]
    assert 2 < high < 12
    assert -5 < low < -1.5
