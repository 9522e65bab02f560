"""What a run is given besides its settings: each mistake is one error of ours, before any work."""

import itertools
import os
import re
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from small_run import make

from morph.cycle.arguments import place_of, plain_identity
from morph.cycle.config import CycleConfig
from morph.cycle.sweep import Sweep
from morph.errors import ConfigError, DataError, MeshError, WorkdirError
from morph.training.data import Batch
from morph.training.mesh import data_mesh
from morph.training.task import Task
from regularizers.errors import MorphError


@pytest.fixture(scope="module")
def cycle(tmp_path_factory):
    return make(tmp_path_factory.mktemp("run") / "own")


CIRCLE: dict = {}
CIRCLE["a"] = CIRCLE
# Changes to a run, and what is said.
WRONG = {
    "a tuple": (lambda c: {"train": tuple(c.train)}, "training set must be a morph.Batch.*tuple"),
    "a test tuple": (lambda c: {"test": tuple(c.test)}, "test set must be a morph.Batch.*tuple"),
    "None": (lambda c: {"train": None}, "training set must be a morph.Batch.*NoneType"),
    "strings": (lambda c: {"train": Batch(c.train.x.astype(str), c.train.y)}, "inputs of.*are <U"),
    "objects": (lambda c: {"train": Batch(c.train.x.astype(object), c.train.y)}, "are object"),
    "complex": (lambda c: {"test": Batch(c.test.x.astype(complex), c.test.y)}, "are complex128"),
    "dates": (lambda c: {"train": Batch(c.train.x.astype("M8[s]"), c.train.y)}, "are datetime64"),
    "lists": (lambda c: {"test": Batch(c.test.x.tolist(), c.test.y)}, "array, found float"),
    "labels": (lambda c: {"train": Batch(c.train.x, ["a"] * 200)}, "labels.* training.* found str"),
    "look 0": (lambda c: {"look_every": 0}, "look_every must be a whole number of at least 1.* 0"),
    "look 2.5": (lambda c: {"look_every": 2.5}, r"look_every must be .*found 2\.5"),
    "look '3'": (lambda c: {"look_every": "3"}, "look_every must be .*found '3'"),
    "seconds": (lambda c: {"checkpoint_seconds": float("nan")}, "seconds, at least 0 or None"),
    "steps": (lambda c: {"checkpoint_steps": 0}, "checkpoint_steps must be a whole number"),
    "no devices": (lambda c: {"mesh": Mesh(np.empty(0, object), ("a",))}, "mesh has no devices"),
    "no mesh": (lambda c: {"mesh": "cpu"}, "mesh='cpu' is not a mesh; write e.g. data=4,fsdp=2"),
    "a folder": (lambda c: {"workdir": 3}, "workdir must be a path, found 3"),
    "NUL": (lambda c: {"workdir": Path("a\0b")}, r"workdir must be a path, found .*\\x00"),
    "a set": (lambda c: {"identity": {"a": {1}}}, "identity must be plain JSON: .*set is not JSON"),
    "an array": (lambda c: {"identity": {"a": np.ones(2)}}, "plain JSON: .*ndarray is not JSON"),
    "huge": (lambda c: {"identity": {"a": 2**70}}, "identity must be plain JSON: .*64 bits"),
    "circle": (lambda c: {"identity": CIRCLE}, "identity must be plain JSON"),
    "half": (lambda c: {"identity": {"a": "\ud800"}}, "identity must be plain JSON: .*UTF-8"),
    "a name": (lambda c: {"identity": {1: 2}}, "names in identity must be strings, found 1"),
    "a setting": (lambda c: {"identity": {"seed": 2}}, "name 'seed', which is one of the report's"),
    "no mapping": (lambda c: {"identity": [1]}, "identity must be {name: plain JSON}"),
    "config": (lambda c: {"config": {"seed": 1}}, "config must be a CycleConfig, found {"),
    "seed": (lambda c: {"config": CycleConfig(seed=2**63)}, "seed must be in .*4294967296"),
    "a module": (lambda c: {"network": np.tanh}, "network must be a Network, .*linen_network"),
    "optimizer": (lambda c: {"optimizer": "adam"}, "optimizer must be a function, .*settings"),
    "no metrics": (lambda c: {"task": Task(metrics={})}, "metrics must be {name: function}, at le"),
    "no task": (lambda c: {"task": None}, "task must be a morph.Task, found None"),
    "of shares": (
        lambda c: {"config": CycleConfig(metrics="accuracy,explained_variance")},
        "the metric 'explained_variance' cannot be computed of outputs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_error_and_nothing_is_written(cycle, name):
    change, told = WRONG[name]
    with pytest.raises(MorphError, match=told) as caught:
        replace(cycle, **change(cycle)).run()
    assert caught.type in (ConfigError, DataError, MeshError, WorkdirError)
    assert not cycle.workdir.exists()


def test_runs_side_by_side_take_no_pipeline_and_no_look_of_zero(cycle):
    class Endless:
        def batches(self, start):
            while True:
                yield cycle.train

    given = {"network": cycle.network, "train": cycle.train, "test": cycle.test}
    config = CycleConfig(penalty="group_lasso")
    with pytest.raises(ConfigError, match="look_every must be"):
        Sweep(**given, config=config, look_every=0)
    with pytest.raises(ConfigError, match="config must be a CycleConfig"):
        Sweep(**given, config=None)
    with pytest.raises(DataError, match=r"a whole set: give a morph\.Batch"):
        Sweep(**given | {"train": Endless()}, config=config).check([])


def test_an_identity_is_what_json_gives_back():
    assert plain_identity({"a": (1, None), "b": float("nan")}) == {"a": [1, None], "b": None}


@pytest.mark.parametrize("name", ["checkpoints", "variables"])
def test_a_file_where_a_directory_belongs(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(
        WorkdirError, match=rf"{re.escape(name)} is not a directory, .*move it away"
    ):
        place_of(tmp_path)


@pytest.mark.parametrize("name", ["lock", "config.json", "metrics.jsonl"])
@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_where_a_file_belongs(tmp_path, name, put):
    put(tmp_path / name)
    with pytest.raises(WorkdirError, match=rf"{re.escape(name)} is not a file, .*move it away"):
        place_of(tmp_path)


def test_a_string_is_a_path_and_what_a_run_left_is_taken(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "lock").write_text("")
    assert place_of(str(tmp_path)) == tmp_path


def test_a_calibration_comes_after_all_that_can_be_refused(cycle, monkeypatch):
    def timed(*args):
        raise AssertionError("timed")

    monkeypatch.setattr("regularizers.named.calibrate", timed)
    for change, told in (
        ({"penalty": "group_laso"}, "group_lasso"),
        ({"floors": "Dens=3"}, "Dens"),
        ({"strengths": "Dens=3"}, "Dens"),
        ({"target": "0.5*here+flopz"}, "no cost 'flopz'"),
    ):
        config = replace(cycle.config, **{"target": "here", **change})
        with pytest.raises(MorphError, match=told):
            replace(cycle, config=config).run()


class Whole:
    """A pipeline without parts."""

    def batches(self, start):
        return itertools.repeat(Batch(np.ones((4, 7)), np.ones(4)))


def test_a_pipeline_that_every_process_reads_whole_is_told(tmp_path, monkeypatch, caplog):
    cycle = make(tmp_path, mesh="data=1")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    cycle._check_batches(data_mesh())
    assert not caplog.text
    replace(cycle, train=Whole())._check_batches(data_mesh())
    assert "every process reads whole batches: Whole has no parts(start, part, " in caplog.text
