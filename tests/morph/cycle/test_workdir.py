"""Which runs may go on in a working directory."""

import errno
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from small_run import make

from morph.cycle.config import renewed
from morph.cycle.workdir import claim_workdir, load_variables, locked, save_variables
from morph.errors import WorkdirError


@pytest.fixture
def workdir(tmp_path):
    assert not claim_workdir(tmp_path, {"network": "mlp", "budget": 0.5})
    return tmp_path


def test_the_same_run_goes_on(workdir):
    assert claim_workdir(workdir, {"network": "mlp", "budget": 0.5})


def test_a_setting_that_an_older_version_did_not_write_counts_as_its_default(workdir):
    defaults = {"budget": 0.7, "patience": 0}
    asked = {"network": "mlp", "budget": 0.5, "patience": 0}
    assert claim_workdir(workdir, asked, defaults)
    with pytest.raises(WorkdirError, match=r"\(patience: 0 there, 1 asked for\)"):
        claim_workdir(workdir, {**asked, "patience": 1}, defaults)
    with pytest.raises(WorkdirError, match=r"\(patience: None there, 0 asked for\)"):
        claim_workdir(workdir, asked)
    assert set(json.loads((workdir / "config.json").read_text())) == {"network", "budget"}


def test_settings_of_an_older_version_have_the_names_of_today(tmp_path):
    old = {"budget": 0.25, "expand_budget": 1.0, "baseline": True, "seed": 3}
    now = {"budget": 1.0, "shrink_to": 0.25, "baselines": "whole,uniform", "seed": 3}
    assert renewed(old) == now
    assert renewed({"budget": 0.5, "expand_budget": None, "baseline": False}) == {
        "budget": 0.5,
        "baselines": "",
    }
    assert not claim_workdir(tmp_path, old)
    assert claim_workdir(tmp_path, now)


def test_settings_of_a_newer_version_are_named_in_one_error(workdir):
    with pytest.raises(
        WorkdirError,
        match=r"budget: 0\.5 there, nothing that this version knows; network: 'mlp' there, 'x' "
        r"asked for\)\. .* to resume, with the newer version that knows budget\.",
    ):
        claim_workdir(workdir, {"network": "x"})


def test_a_configuration_that_cannot_be_read_is_an_error_and_stays(workdir, monkeypatch):
    def broken(self, *args, **kwargs):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))

    config = workdir / "config.json"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", broken)
        with pytest.raises(WorkdirError, match=r"cannot use .* Input/output error"):
            claim_workdir(workdir, {"network": "mlp"})
    for text in ("5", '{"network": "ml'):
        config.write_text(text)
        with pytest.raises(WorkdirError, match="cannot use"):
            claim_workdir(workdir, {"network": "mlp"})
        assert config.read_text() == text


@pytest.mark.parametrize(
    "left", ["checkpoints/3.ckpt", "checkpoints/3/facts", "seed-0/seed.json", "seed/d"]
)
def test_what_a_run_left_is_not_taken_over_without_its_configuration(workdir, left):
    (workdir / left).parent.mkdir(parents=True)
    (workdir / left).write_text("{}")
    assert claim_workdir(workdir, {"network": "mlp", "budget": 0.5})
    (workdir / "config.json").unlink()
    with pytest.raises(WorkdirError, match=r"but no config.json that says .* nothing was changed"):
        claim_workdir(workdir, {"network": "mlp", "budget": 0.5})
    assert not (workdir / "config.json").exists()


def test_switches_of_jax_that_change_results_belong_to_a_run(workdir, tmp_path_factory):
    asked = {"network": "mlp", "budget": 0.5}
    with jax.enable_x64(True):
        with pytest.raises(WorkdirError, match=r"\(jax_enable_x64: False there, True asked for\)"):
            claim_workdir(workdir, asked)
        double = tmp_path_factory.mktemp("double")
        assert not claim_workdir(double, asked)
        assert claim_workdir(double, asked)
    for switch in (jax.default_matmul_precision("highest"), jax.default_prng_impl("rbg")):
        with switch, pytest.raises(WorkdirError, match=r"jax_default_.* asked for"):
            claim_workdir(workdir, asked)
    with pytest.raises(WorkdirError, match=r"\(jax_enable_x64: True there, False asked for\)"):
        claim_workdir(double, asked)


def test_two_runs_in_one_directory_are_refused_and_a_dead_one_is_no_obstacle(tmp_path):
    (tmp_path / "lock").write_text("process 1 on another.host\n")  # died, and left the file
    with (
        locked(tmp_path),
        pytest.raises(WorkdirError, match=rf"another run is using .* process {os.getpid()} on"),
    ):
        make(tmp_path).run()
    with locked(tmp_path):
        pass


def test_variables_are_replaced_whole(tmp_path):
    for value in (1.0, 2.0):
        save_variables(tmp_path / "v", {"params": {"w": np.full(3, value)}})
    assert float(load_variables(tmp_path / "v")["params"]["w"][0]) == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["v"]
