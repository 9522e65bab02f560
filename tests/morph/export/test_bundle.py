"""A bundle is read back and verified; it holds only what lies in it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from morph.export import ExportError, bundle, compare, stablehlo

pytest.importorskip("flatbuffers")


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
        examples=(x, logits),
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
    with pytest.raises(ExportError, match="not a manifest of version 1"):
        bundle.load(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ExportError, match="is not a bundle"):
        bundle.load(tmp_path)


def test_a_bundle_holds_only_what_lies_in_it(shrunk, tmp_path):
    pytest.importorskip("safetensors")
    _, fn, variables, x = shrunk
    one = stablehlo.to_stablehlo(fn, variables, x, tmp_path / "network.stablehlo")
    with pytest.raises(ExportError, match="lies elsewhere"):
        bundle.save(tmp_path / "other", variables, [one], name="n", figures={})


def test_every_file_is_checked_against_what_jax_gave(shrunk, tmp_path):
    pytest.importorskip("safetensors")
    _, fn, variables, x = shrunk
    one = stablehlo.to_stablehlo(fn, variables, x, tmp_path / "network.stablehlo")
    wanted = np.asarray(fn(variables, x))

    def saved(examples):
        bundle.save(tmp_path, variables, [one], name="a", figures={}, examples=examples)

    saved((x, wanted))
    (off,) = bundle.check(tmp_path).values()
    assert off < 1e-6
    assert "export.deserialize" in (tmp_path / "README.md").read_text()
    saved((x, wanted + 1))
    with pytest.raises(ExportError, match=r"differs from JAX by .* again"):
        bundle.check(tmp_path)
    saved((x[..., :1, :], wanted))
    with pytest.raises(ExportError, match=r"network.stablehlo does not run here: "):
        bundle.check(tmp_path)
    (tmp_path / "examples.safetensors").unlink()
    saved(None)
    with pytest.raises(ExportError, match="keeps no examples"):
        bundle.check(tmp_path)
