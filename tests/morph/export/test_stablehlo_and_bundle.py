import json
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from morph.errors import MissingExtraError
from morph.export import Agreement, ExportError, bundle, compare, onnx, stablehlo, tflite
from morph.export.frozen import freeze, steps

pytest.importorskip("flatbuffers")


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        return nn.Dense(3)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def shrunk():
    """A network with an architecture, its small function and variables, and images."""
    module, rng = Net(), np.random.default_rng(0)
    x = rng.normal(size=(5, 7, 5, 1)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    graph = reg.trace_channels(module.apply, variables, x)
    architecture = morph.shrink(graph, {"Conv_0": np.arange(6) % 3 > 0})
    return architecture, morph.compact(module.apply, architecture), architecture.take(variables), x


def test_what_depends_on_weights_alone_is_computed_once(shrunk):
    _, fn, variables, x = shrunk
    left = [str(step.eqn.primitive) for step in steps(fn, variables, x)]
    assert "rsqrt" not in left  # of the batch norm's variance
    assert left.count("conv_general_dilated") == 1
    assert "jit" not in left
    np.testing.assert_allclose(jax.jit(freeze(fn, variables))(x), fn(variables, x), atol=1e-6)


def test_a_file_runs_at_any_batch_without_the_model(shrunk, tmp_path):
    _, fn, variables, x = shrunk
    written = stablehlo.to_stablehlo(fn, variables, x[:2], tmp_path / "a")
    assert written.batch is None
    assert not written.note
    assert written.size_bytes == written.path.stat().st_size
    np.testing.assert_allclose(stablehlo.load(written.path)(x), fn(variables, x), atol=1e-6)


def test_a_function_that_mixes_examples_keeps_its_batch_and_says_so(tmp_path):
    def fn(variables, x):
        return (x - x.mean(0, keepdims=True) if x.shape[0] > 1 else x) @ variables

    x = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    written = stablehlo.to_stablehlo(fn, np.ones((2, 2), np.float32), x, tmp_path / "a")
    found = stablehlo.load(written.path)(x)
    np.testing.assert_allclose(found, (x - x.mean(0)).sum(1)[:, None].repeat(2, 1))
    assert written.batch == 3
    assert "the batch is fixed: InconclusiveDimensionOperation" in written.note


def test_bad_input_names_what_was_found(shrunk, tmp_path):
    _, fn, variables, x = shrunk
    with pytest.raises(ExportError, match="example input"):
        stablehlo.to_stablehlo(fn, variables, 3, tmp_path / "a")
    with pytest.raises(ExportError, match="one output"):
        stablehlo.to_stablehlo(lambda v, x: (x, x), variables, x, tmp_path / "a")
    (tmp_path / "b").write_bytes(b"no such thing")
    with pytest.raises(ExportError, match=r"no file of jax\.export"):
        stablehlo.load(tmp_path / "b")


@pytest.mark.parametrize(
    ("module", "write"),
    [
        (stablehlo, lambda: stablehlo.to_stablehlo(None, None, None, "")),
        (onnx, lambda: onnx.to_onnx(None, None, None, "")),
        (tflite, lambda: tflite.to_tflite(None, None, None, "", calibration=())),
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
    with pytest.raises(ExportError, match="two arrays of logits"):
        compare(reference, reference[:1], np.asarray([1, 0]))
    with pytest.raises(ExportError, match="as many labels"):
        compare(reference, reference, np.asarray([1]))


def test_what_others_wrote_is_no_mark_in_the_card(shrunk, tmp_path):
    pytest.importorskip("safetensors")
    _, fn, variables, x = shrunk
    one = stablehlo.to_stablehlo(fn, variables, x, tmp_path / "network.stablehlo")
    one = replace(one, note="see [here](http://a)\n# or")
    bundle.save(
        tmp_path, variables, [one], name="a|b\n<script>", figures={"k|": "v\x1b[2J|"},
        command="python\n\n# make.py",
    )  # fmt: skip
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert lines[0] == r"# a\|b \<script\>"
    assert r"| k\| | v\\x1b\[2J\| |" in lines
    assert r"network.stablehlo: see \[here\](http://a) \# or" in lines
    assert "    python # make.py" in lines


def test_a_bundle_is_read_back_and_verified(shrunk, tmp_path):
    pytest.importorskip("safetensors")
    architecture, fn, variables, x = shrunk
    one = stablehlo.to_stablehlo(fn, variables, x, tmp_path / "network.stablehlo")
    logits = np.asarray(fn(variables, x))
    labels = np.zeros(len(x), np.int32)
    bundle.save(
        tmp_path,
        variables,
        [one],
        name="small",
        figures={"parameters": 1234567, "accuracy": 0.5},
        agreements={"stablehlo": compare(logits, stablehlo.load(one.path)(x), labels)},
        architecture=architecture,
        command="python make.py",
    )
    found = bundle.load(tmp_path)
    assert set(found.files) == {"network.stablehlo"}
    assert found.figures == {"parameters": 1234567, "accuracy": 0.5}
    assert found.architecture.widths == architecture.widths
    kernel = found.variables["params/Conv_0/kernel"]
    assert np.array_equal(kernel, variables["params"]["Conv_0"]["kernel"])
    card = (tmp_path / "README.md").read_text()
    for text in ("# small", "1,234,567", f"{one.size_bytes:,}", "python make.py", "jax "):
        assert text in card

    with one.path.open("r+b") as file:  # one bit, the size as it was
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ExportError, match=r"network\.stablehlo is not the file that was bundled"):
        bundle.load(tmp_path)
    one.path.unlink()
    with pytest.raises(ExportError, match="lacks network"):
        bundle.load(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"]["../outside"] = manifest["files"]["README.md"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match="no manifest of version 1"):
        bundle.load(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ExportError, match="is no bundle"):
        bundle.load(tmp_path)


def test_a_bundle_holds_only_what_lies_in_it(shrunk, tmp_path):
    pytest.importorskip("safetensors")
    _, fn, variables, x = shrunk
    one = stablehlo.to_stablehlo(fn, variables, x, tmp_path / "network.stablehlo")
    with pytest.raises(ExportError, match="lies elsewhere"):
        bundle.save(tmp_path / "other", variables, [one], name="n", figures={})


def test_integers_go_in_as_they_are(tmp_path):
    table = np.arange(12, dtype=np.float32).reshape(6, 2)
    tokens = jnp.asarray([[1, 2, 5]], jnp.int32)
    written = stablehlo.to_stablehlo(lambda t, x: t[x].sum(1), table, tokens, tmp_path / "a")
    np.testing.assert_allclose(stablehlo.load(written.path)(tokens), [[16.0, 19.0]])
