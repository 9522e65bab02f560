"""Kills a run at random moments; what it ends with must be what a run that was left alone has.

    python benchmarks/kill.py --kills 20 --out results/kill.json
    python benchmarks/kill.py --kills 10 --processes 4 --out results/kill_processes.json

Every child is `python -m experiments.run` on digits. It gets SIGKILL at moments that are spread
evenly over the records of the whole run, so that all phases have their share, each after a random
delay that may fall into a step, a checkpoint, a compilation or the end of a phase; then the same
command goes on. At most two intervals may be lost: one, and another while the checkpoint before was
still being written (`beyond` counts the kills that lost more). Up to `--each` kills hit one run.
Compared bit by bit: metrics.jsonl, architecture.json, shrunk.json, and the variables of both
networks. About 15 s for each kill.

With several processes one of them gets it, any of them. The others must end by themselves, with
status 75 and one line of an error, before all are started again; how long that takes is told.
"""

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from timing import report

from morph.cycle.saved import SUFFIX, read
from morph.cycle.workdir import load_variables

FILES = ("metrics.jsonl", "architecture.json", "shrunk.json")
VARIABLES = ("variables", "shrunk_variables")
INTERVAL, RECORD = 20, 10  # steps between checkpoints, and between records
LONGEST_DELAY_S = 0.5
LONGEST_END_S = 120  # for processes whose peer is gone: they are to need 30

Processes = list[subprocess.Popen[bytes]]


def start(network: str, workdir: Path, log: Path, count: int) -> Processes:
    """Starts, or goes on with, a run of so many processes; each has a log of its own."""
    flags = {
        "seed_network": network,
        "width": 0.5,
        "dataset": "digits",
        "penalty": "group_lasso",
        "budget": 1.0,
        "shrink_to": 0.5,
        "cycles": 2,
        "seed_steps": 100,
        "shrink_steps": 200,
        "retrain_steps": 100,
        "checkpoint_steps": INTERVAL,
        "workdir": workdir,
    }
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{found.getsockname()[1]}"
    started = []
    for number in range(count):
        if count > 1:
            flags |= {"coordinator": coordinator, "process_id": number, "num_processes": count}
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        with log_of(log, number).open("ab") as file:
            command = [sys.executable, "-m", "experiments.run", *arguments]
            started.append(subprocess.Popen(command, stdout=file, stderr=file))
    return started


def log_of(log: Path, number: int) -> Path:
    """The log of one of the processes."""
    return log.with_suffix(f".{number}.log")


def finish(processes: Processes, log: Path) -> None:
    """Waits until a run has ended well; else exits with what it said."""
    for number, process in enumerate(processes):
        if process.wait() != 0:
            raise SystemExit(f"a run failed:\n{log_of(log, number).read_text()[-2000:]}")


def positions(workdir: Path) -> list[tuple[int, int]]:
    """Phase and step of every whole record."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    records = [json.loads(line) for line in lines]
    return [(record["phase_index"], record["step"]) for record in records]


def saved(workdir: Path) -> tuple[int, int]:
    """Phase and step of the newest checkpoint."""
    found = [(0, 0)]
    for path in workdir.glob(f"checkpoints/*{SUFFIX}"):
        progress = read(path).progress
        found.append((progress["phase"], progress["step"]))
    return max(found)


def kill_when(
    processes: Processes, number: int, workdir: Path, records: int, delay_s: float
) -> bool:
    """Kills a process some time after its run left so many records; False if it ended before."""
    process = processes[number]
    while len(positions(workdir)) < records and process.poll() is None:
        time.sleep(0.01)
    time.sleep(delay_s)
    if process.poll() is not None:
        return False
    process.kill()
    process.wait()
    return True


def ended(processes: Processes, killed: int, log: Path) -> dict[str, Any]:
    """How the other processes end: after how long, with which status, and what they say last.

    Raises:
        SystemExit: if one does not end; all are killed.
    """
    began = time.monotonic()
    told: dict[str, Any] = {"statuses": [], "said": []}
    try:
        for number, process in enumerate(processes):
            if number != killed:
                left = LONGEST_END_S - (time.monotonic() - began)
                told["statuses"].append(process.wait(max(1.0, left)))
                lines = log_of(log, number).read_text(errors="replace").split("\n")
                errors = [line for line in lines if line.startswith("error:")]
                told["said"].append(errors[-1].partition(". To go on")[0] if errors else "")
    except subprocess.TimeoutExpired as error:
        for process in processes:
            process.kill()
        raise SystemExit(f"process {number} does not end: its peer {killed} is gone") from error
    return {"killed": killed, "others_ended_s": time.monotonic() - began, **told}


def same(one: Path, other: Path) -> dict[str, bool]:
    """For every file whether two runs have the same one, to the last bit."""
    found = {name: (one / name).read_bytes() == (other / name).read_bytes() for name in FILES}
    for name in VARIABLES:
        a, b = (
            [(str(path), leaf.tobytes()) for path, leaf in jax.tree.leaves_with_path(tree)]
            for tree in (jax.device_get(load_variables(run / name)) for run in (one, other))
        )
        found[name] = a == b
    return found


def killed(
    args: argparse.Namespace, root: Path, straight: Path, number: int, moments: list[float]
) -> list[dict[str, Any]]:
    """Kills one run at some moments, lets it end, and returns a row for each kill."""
    rng = random.Random(f"{args.seed} {number}")
    whole = positions(straight)
    workdir, log = root / f"killed{number}", root / f"killed{number}.log"
    rows = []
    for moment in moments:
        processes = start(args.network, workdir, log, args.processes)
        records, victim = int(moment * len(whole)), rng.randrange(args.processes)
        delay_s = rng.uniform(0.0, LONGEST_DELAY_S)
        if not kill_when(processes, victim, workdir, records, delay_s):
            finish(processes, log)
            break
        others = ended(processes, victim, log) if args.processes > 1 else {}
        last, kept = max(positions(workdir), default=(0, 0)), saved(workdir)
        between = [position for position in whole if kept < position <= last]
        rows.append(
            {
                "run": number,
                "phase": last[0],
                "step": last[1],
                "saved_phase": kept[0],
                "saved_step": kept[1],
                "records_lost": len(between),
                "beyond": len(between) > 2 * INTERVAL // RECORD,
                **others,
            }
        )
    finish(start(args.network, workdir, log, args.processes), log)
    torn = log_of(log, 0).read_text(errors="replace").count("is torn")
    identical = same(straight, workdir)
    print(f"run {number}: {len(rows)} kills, {torn} torn, identical: {identical}", flush=True)
    return [{**row, "torn": torn, "identical": all(identical.values())} for row in rows]


def main() -> None:
    """Prints a row for every kill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--each", type=int, default=5, help="kills of one run")
    parser.add_argument("--processes", type=int, default=1, help="of the run, on this machine")
    parser.add_argument("--network", default="mlp")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="write the table as JSON to this path")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    # One moment in each of as many equal parts of a run, dealt out to the runs.
    moments = [(i + rng.random()) / args.kills for i in range(args.kills)]
    runs = -(-args.kills // args.each)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        log = root / "straight.log"
        finish(start(args.network, root / "straight", log, args.processes), log)
        rows = [
            row
            for number in range(runs)
            for row in killed(args, root, root / "straight", number, moments[number::runs])
        ]
    facts = {
        "network": args.network,
        "interval_steps": INTERVAL,
        "kills": len(rows),
        "identical": sum(row["identical"] for row in rows),
        "corrupt": sum(not row["identical"] for row in rows),
        "most_records_lost": max(row["records_lost"] for row in rows),
        "records_in_an_interval": INTERVAL // RECORD,
        "beyond": sum(row["beyond"] for row in rows),
    }
    if args.processes > 1:
        facts["processes"] = args.processes
        facts["longest_end_s"] = max(row["others_ended_s"] for row in rows)
    report(rows, args.out, **facts)
    print(facts)


if __name__ == "__main__":
    main()
