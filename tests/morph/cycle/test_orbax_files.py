"""Orbax's errors are ours, and are said once."""

import resource
import time

import numpy as np
import pytest

from morph.cycle.orbax_files import read_arrays, write_arrays
from morph.errors import WorkdirError


def test_a_full_disk_is_one_error_and_nothing_else_is_printed(tmp_path, capfd, caplog):
    noise = {f"w{i}": np.random.default_rng(i).normal(size=20_000) for i in range(3)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(WorkdirError, match=r"cannot write the arrays in .*/full: .*too large"):
            write_arrays(tmp_path / "full", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    time.sleep(0.1)  # its threads are late
    assert capfd.readouterr().err == ""
    assert "SignalingThread" not in caplog.text
    write_arrays(tmp_path / "full", noise)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    np.testing.assert_array_equal(read_arrays(tmp_path / "full")["w1"], noise["w1"])


def test_what_is_not_there_or_another_structure_is_an_error(tmp_path):
    with pytest.raises(WorkdirError, match=r"cannot read the arrays in .*/none"):
        read_arrays(tmp_path / "none")
    write_arrays(tmp_path / "a", {"w": np.zeros(3)})
    with pytest.raises(WorkdirError, match=r"cannot read the arrays in .*/a"):
        read_arrays(tmp_path / "a", {"other": np.zeros(3)})


def test_a_path_may_look_like_a_pattern(tmp_path, caplog):
    place = tmp_path / "exp[lr=0.1]*?"
    place.mkdir()
    tree = {"a": {"b": np.arange(6.0).reshape(2, 3)}, "c": np.ones((), np.int32)}
    for _ in range(2):  # the second replaces the first
        write_arrays(place / "v[0]", tree)
    assert [path.name for path in place.iterdir()] == ["v[0]"]
    for like in (None, tree):
        found = read_arrays(place / "v[0]", like)
        np.testing.assert_array_equal(found["a"]["b"], tree["a"]["b"])
    assert caplog.text == ""
