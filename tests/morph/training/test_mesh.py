"""Meshes of devices, and processes that join."""

import socket

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from morph.training import mesh as m


def test_a_batch_that_cannot_be_cut_evenly_is_refused():
    three = Mesh(np.asarray(jax.devices() * 3)[:1], ("data",))
    assert m.split(np.zeros((2, 5), int), three).shape == (2, 5)
    with pytest.raises(m.MeshError, match=r"batch of 12 examples .* 8 devices; .* multiple of 8"):
        m.check_divisible(12, jax.sharding.AbstractMesh((4, 2), ("a", "b")))


def test_arrays_of_one_process_go_to_the_mesh_and_back_unchanged():
    tree = {"a": jnp.asarray([-0.0, np.nan], jnp.bfloat16), "b": 3, "c": np.zeros((0, 2), bool)}
    there = m.replicated(tree, m.data_mesh())
    assert there["a"].sharding.is_fully_replicated
    back = m.local(there)
    assert np.asarray(back["a"]).tobytes() == np.asarray(tree["a"]).tobytes()
    assert (back["b"], back["c"].shape) == (3, (0, 2))


def test_one_process_needs_no_agreement():
    assert m.any_of(True, False) == (True, False)
    assert m.from_first(lambda: 7) == 7
    assert m.from_each(lambda: 7) == [7]
    assert m.is_first()


def test_processes_are_joined_only_if_all_is_known(monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    assert not m.connect()
    with pytest.raises(m.MeshError, match=r"belong together; .*process_id=1, num_processes=None"):
        m.connect("here:1", 1)
    with pytest.raises(m.MeshError, match=r"process 2 of 2 cannot join the others at here:1: "):
        m.connect("here:1", 2, 2)
    for process, address in enumerate(("here", ":1", "here:0", "here:65536", "here:http", "")):
        with pytest.raises(m.MeshError, match=rf"must be host:port of process 0.*'{address}'"):
            m.connect(address, process % 2, 2)


def test_a_port_that_is_taken_is_told(monkeypatch):
    def initialize(*_, **__):
        raise RuntimeError("UNKNOWN: Failed to start RPC server")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(m.MeshError, match=r"RPC server; choose a free port of this machine"):
        m.connect("here:1", 0, 2)


def test_a_coordinator_that_does_not_answer_is_given_up_in_time():
    with socket.socket() as found:  # bound, and nobody listens
        found.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{found.getsockname()[1]}"
        told = f"the coordinator {where} did not answer for 0.2 s .*; start process 0"
        with pytest.raises(m.MeshError, match=told):
            m.connect(where, 1, 2, timeout_s=0.2)


def test_tasks_of_slurm_are_joined_by_themselves(monkeypatch):
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: joined.append(a))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert not m.connect()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert m.connect()
    assert joined == [(None, None, None)]
