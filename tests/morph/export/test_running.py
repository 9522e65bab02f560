"""The lines of a bundle's README run."""

import re
import shutil
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest

from morph.export import onnx, stablehlo, to_onnx, to_stablehlo
from morph.export.running import run_lines

pytest.importorskip("onnxruntime")
pytest.importorskip("flatbuffers")


def blocks(names, language):
    return re.findall(rf"```{language}\n(.*?)```", "\n".join(run_lines(names)), re.DOTALL)


def test_only_what_there_is_is_shown():
    assert run_lines([]) == []
    assert len(blocks(["network.onnx"], "python")) == len(blocks(["network.onnx"], "js")) == 1
    assert len(blocks(["network.stablehlo", "network.tflite"], "python")) == 2


def test_the_lines_of_python_run(tmp_path, monkeypatch):
    kernel, x = np.eye(4, 3, dtype=np.float32) + 1, np.ones((2, 4), np.float32)
    to_onnx(lambda w, x: jnp.tanh(x) @ w + 1, kernel, x, tmp_path / "network.onnx")
    to_stablehlo(lambda w, x: jnp.tanh(x) @ w + 1, kernel, x, tmp_path / "network.stablehlo")
    monkeypatch.chdir(tmp_path)
    first, second = blocks(["network.onnx", "network.stablehlo"], "python")
    scope = {}
    exec(first, scope)
    np.testing.assert_array_equal(scope["y"], onnx.load("network.onnx")(np.zeros((1, 4), "f4")))
    exec(second, scope)
    np.testing.assert_array_equal(scope["run"](x), stablehlo.load("network.stablehlo")(x))


@pytest.mark.skipif(shutil.which("node") is None, reason="node reads the lines of JavaScript")
def test_the_lines_of_javascript_are_javascript(tmp_path):
    (lines,) = blocks(["network.onnx"], "js")
    (tmp_path / "run.mjs").write_text(lines)
    checked = subprocess.run(["node", "--check", "run.mjs"], cwd=tmp_path, capture_output=True)
    assert checked.returncode == 0, checked.stderr.decode()
