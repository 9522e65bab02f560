"""Kills a run at random moments; what it ends with must be what a run that was left alone has.

    python benchmarks/kill.py --kills 20 --out results/kill.json

Every child is `python -m experiments.run` on digits. It gets SIGKILL at moments that are spread
evenly over the records of the whole run, so that all phases have their share, each after a random
delay that may fall into a step, a checkpoint, a compilation or the end of a phase; then the same
command goes on. At most two intervals may be lost: one, and another while the checkpoint before was
still being written (`beyond` counts the kills that lost more). Up to `--each` kills hit one run.
Compared bit by bit: metrics.jsonl, architecture.json, shrunk.json, and the variables of both
networks. About 15 s for each kill.
"""

import argparse
import json
import random
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


def start(network: str, workdir: Path, log: Path) -> subprocess.Popen[bytes]:
    """Starts, or goes on with, a run."""
    flags = {
        "seed_network": network,
        "width": 0.5,
        "dataset": "digits",
        "penalty": "group_lasso",
        "cycles": 2,
        "seed_steps": 100,
        "shrink_steps": 200,
        "retrain_steps": 100,
        "checkpoint_steps": INTERVAL,
        "workdir": workdir,
    }
    arguments = [f"--{name}={value}" for name, value in flags.items()]
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.run", *arguments], stdout=file, stderr=file
        )


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
    process: subprocess.Popen[bytes], workdir: Path, records: int, delay_s: float
) -> bool:
    """Kills a run some time after it has left so many records; False if it ended before."""
    while len(positions(workdir)) < records and process.poll() is None:
        time.sleep(0.01)
    time.sleep(delay_s)
    if process.poll() is not None:
        return False
    process.kill()
    process.wait()
    return True


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
        process = start(args.network, workdir, log)
        records = int(moment * len(whole))
        if not kill_when(process, workdir, records, rng.uniform(0.0, LONGEST_DELAY_S)):
            break
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
            }
        )
    if start(args.network, workdir, log).wait() != 0:
        raise SystemExit(f"a resumed run failed:\n{log.read_text()[-2000:]}")
    torn = log.read_text(errors="replace").count("is torn")
    identical = same(straight, workdir)
    print(f"run {number}: {len(rows)} kills, {torn} torn, identical: {identical}", flush=True)
    return [{**row, "torn": torn, "identical": all(identical.values())} for row in rows]


def main() -> None:
    """Prints a row for every kill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--each", type=int, default=5, help="kills of one run")
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
        if start(args.network, root / "straight", root / "straight.log").wait() != 0:
            raise SystemExit((root / "straight.log").read_text()[-2000:])
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
    report(rows, args.out, **facts)
    print(facts)


if __name__ == "__main__":
    main()
