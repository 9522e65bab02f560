"""Devices and processes: how batches are divided, and how processes agree.

A run is the same program in every process. A batch is divided over the devices of all of them;
where everything else lies, `morph.training.layout` tells. Whatever depends on one process alone
(its files, its clock, its signals) comes from process 0, or is agreed on.
"""

from __future__ import annotations

import math
import os
import pickle
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from morph.errors import MeshError, PeerError
from regularizers.host import on_devices, on_host

T = TypeVar("T")
TENSOR = "tensor"  # the axis of a mesh that batches are not divided over
HEARTBEAT_S = 20  # a process that was not heard of for so long is gone
JOIN_S = 300  # for so long processes wait for each other at the start


def is_one_of_many(*given: Any) -> bool:
    """Whether there are processes to join: some are given, or Slurm started several tasks."""
    slurm = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    return slurm > 1 or any(value is not None for value in given)


def connect(
    coordinator: str | None = None,
    process_id: int | None = None,
    num_processes: int | None = None,
    *,
    timeout_s: float = JOIN_S,
) -> bool:
    """Joins the processes of a run; must come before anything else is asked of JAX.

    Args:
        coordinator: `host:port` of process 0, the same in all processes.
        process_id: this process's number, from 0.
        num_processes: how many there are.
        timeout_s: how long to wait for the others.

    Returns:
        Whether there is anything to join: if nothing is given, only tasks that Slurm's `srun`
        started together are, with what Slurm tells them.

    Raises:
        MeshError: if only some are given, they contradict each other, or the coordinator does not
            answer. Where other processes do not come JAX aborts: see `peers.join`.
    """
    given = (coordinator, process_id, num_processes)
    if not is_one_of_many(*given):
        return False
    if None in given and given != (None, None, None):
        raise MeshError(
            "coordinator, process_id and num_processes belong together; found "
            f"coordinator={coordinator}, process_id={process_id}, num_processes={num_processes}"
        )
    if coordinator is not None:
        address = _address_of(coordinator)
        if process_id and num_processes and process_id < num_processes:
            _wait_for(coordinator, address, timeout_s)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=math.ceil(timeout_s),
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except (RuntimeError, ValueError) as error:
        taken = "; choose a free port of this machine" if "RPC server" in str(error) else ""
        raise MeshError(
            f"process {process_id} of {num_processes} cannot join the others at {coordinator}: "
            f"{error}{taken}"
        ) from error
    return True


def _address_of(coordinator: str) -> tuple[str, int]:
    """The host and the port of a coordinator.

    Raises:
        MeshError: if it is something else.
    """
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise MeshError(
            f"coordinator must be host:port of process 0, with a port from 1 to {2**16 - 1}, found "
            f"{coordinator!r}"
        )
    return host.strip("[]"), int(port)


def _wait_for(coordinator: str, address: tuple[str, int], timeout_s: float) -> None:
    """Waits until a coordinator can be reached: JAX would end the process where it cannot.

    Raises:
        MeshError: if it cannot, in time.
    """
    until = time.monotonic() + timeout_s
    while True:
        left = until - time.monotonic()
        try:
            socket.create_connection(address, max(left, 0.1)).close()
        except OSError as error:  # it may not have started, or its name not be known yet
            if left <= 0.0:
                raise MeshError(
                    f"the coordinator {coordinator} did not answer for {timeout_s:g} s ({error}); "
                    "start process 0 on that machine, with the same --coordinator, or give the "
                    "address of the machine where it runs"
                ) from error
            time.sleep(min(left, 0.5))
        else:
            return


def data_mesh() -> Mesh:
    """All devices of all processes, along one axis."""
    return Mesh(np.asarray(jax.devices()), ("data",))


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes that batches are divided over: all but those that only divide variables."""
    return tuple(name for name in mesh.axis_names if name != TENSOR)


def check_divisible(batch_size: int, mesh: Mesh) -> None:
    """Raises `MeshError` if a batch cannot be divided evenly over a mesh."""
    axes = batch_axes(mesh)
    parts = math.prod(mesh.shape[name] for name in axes)
    if batch_size % parts:
        over = f"{parts} devices" if parts == mesh.size else f"{' x '.join(axes)} = {parts}"
        raise MeshError(
            f"a batch of {batch_size} examples cannot be cut evenly over {over}; "
            f"choose a batch_size that is a multiple of {parts}, or fewer devices"
        )


def replicated(tree: T, mesh: Mesh) -> T:
    """The arrays of a tree, equal in all processes, whole on every device of a mesh."""
    place = NamedSharding(mesh, PartitionSpec())
    return placed(tree, jax.tree.map(lambda _: place, tree))


def part_here(mesh: Mesh) -> tuple[int, int]:
    """Which part of every batch the devices of this process have, of how many equal ones.

    Where they lie apart it is the whole, number 0 of 1.
    """
    axes = batch_axes(mesh)
    count = math.prod(mesh.shape[name] for name in axes)
    place = NamedSharding(mesh, PartitionSpec(axes))
    every: Any = place.devices_indices_map((count,)).items()
    here = jax.process_index()
    held = {part[0].indices(count)[0] for device, part in every if device.process_index == here}
    first, own = min(held), max(held) - min(held) + 1
    return (0, 1) if first % own or count % own else (first // own, count // own)


def split(chunk: T, mesh: Mesh, part: tuple[int, int] = (0, 1)) -> T:
    """Arrays [steps, batch, ...]; each device gets its part of a batch.

    Args:
        chunk: equal in all processes; or, of each, its part of the batches.
        mesh: of the devices.
        part: which part it is, of how many equal ones; see `part_here`.

    Raises:
        MeshError: if the batch cannot be cut evenly.
    """
    number, parts = part
    place = NamedSharding(mesh, PartitionSpec(None, batch_axes(mesh)))

    def cut(leaf: Any) -> jax.Array:
        check_divisible(leaf.shape[1] * parts, mesh)
        if parts == 1:
            return on_devices(leaf, place)
        before = number * leaf.shape[1]
        shape = (leaf.shape[0], parts * leaf.shape[1], *leaf.shape[2:])

        def own(at: Any) -> Any:
            start, stop, _ = at[1].indices(shape[1])
            return leaf[(at[0], slice(start - before, stop - before), *at[2:])]

        return jax.make_array_from_callback(shape, place, own)

    return jax.tree.map(cut, chunk)


def rows_of(data: T, indices: Any, mesh: Mesh) -> T:
    """The rows of a set [steps, batch, ...], cut as by `split`; a process reads its own only.

    Args:
        data: arrays on the host, equal in all processes.
        indices: int [steps, batch], likewise.
        mesh: of the devices.
    """
    check_divisible(indices.shape[1], mesh)
    place = NamedSharding(mesh, PartitionSpec(None, batch_axes(mesh)))

    def cut(leaf: Any) -> jax.Array:
        shape = (*indices.shape, *leaf.shape[1:])

        def own(at: Any) -> Any:
            return leaf[indices[at[:2]]]

        return jax.make_array_from_callback(shape, place, own)

    return jax.tree.map(cut, data)


def placed(tree: T, places: Any) -> T:
    """The arrays of a tree, equal in all processes, where a tree of shardings says."""
    return jax.tree.map(on_devices, tree, places)


def local(tree: Any) -> Any:
    """The arrays of a tree as this process's own, tied to no device; all processes must ask."""
    return jax.tree.map(lambda leaf: jnp.asarray(on_host(leaf)), tree)


def is_first() -> bool:
    """Whether this is process 0, which alone writes files and talks."""
    return jax.process_index() == 0


def any_of(*wishes: bool) -> tuple[bool, ...]:
    """For each wish whether any process has it; all get the same answer at the same time."""
    if jax.process_count() == 1:
        return wishes
    gathered = multihost_utils.process_allgather(np.asarray(wishes))  # [processes, wishes]
    return tuple(map(bool, gathered.any(0)))


def gathered(data: bytes) -> list[bytes]:
    """What each process has, for all of them."""
    size = np.frombuffer(len(data).to_bytes(8, "little"), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(size))  # [processes, 8]
    lengths = [int.from_bytes(one.tobytes(), "little") for one in sizes]
    buffer = np.zeros(max(lengths), np.uint8)
    buffer[: len(data)] = np.frombuffer(data, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(buffer))  # [processes, bytes]
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def from_first(produce: Callable[[], Any]) -> Any:
    """What process 0 makes, for all processes; the others wait and make nothing.

    Raises:
        Exception: what `produce` raises, in process 0.
        PeerError: with its message, in the others.
    """
    if jax.process_count() == 1:
        return produce()
    sent, failure = _made(produce) if is_first() else (b"", None)
    value, message = pickle.loads(_broadcast(sent))
    if failure is not None:
        raise failure
    if message is not None:
        raise PeerError(f"process 0 failed: {message}")
    return value


def from_each(produce: Callable[[], T]) -> list[T]:
    """What every process makes, in their order, for all processes; exchanged once.

    Raises:
        Exception: what `produce` raises, in the process where it does.
        PeerError: with its message, in the others.
    """
    if jax.process_count() == 1:
        return [produce()]
    sent, failure = _made(produce)
    found = list(map(pickle.loads, gathered(sent)))
    if failure is not None:
        raise failure
    for number, (_, message) in enumerate(found):
        if message is not None:
            raise PeerError(f"process {number} failed: {message}")
    return [value for value, _ in found]


def _made(produce: Callable[[], Any]) -> tuple[bytes, Exception | None]:
    """What is made, to be sent, with None; or with what it raises, its message."""
    try:
        return pickle.dumps((produce(), None)), None
    except Exception as error:  # it goes on where it was raised, once all have been told
        return pickle.dumps((None, f"{type(error).__name__}: {error}")), error


def _broadcast(data: bytes) -> bytes:
    """Process 0's bytes; not its arrays, whose negative zeros a sum over processes would lose."""
    size = np.frombuffer(len(data).to_bytes(8, "little"), np.uint8)
    size = np.asarray(multihost_utils.broadcast_one_to_all(size))
    buffer = np.zeros(int.from_bytes(size.tobytes(), "little"), np.uint8)
    if is_first():
        buffer[:] = np.frombuffer(data, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes()
