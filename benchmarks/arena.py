"""The arena: Morph, Torch-Pruning and uniform width multipliers, at equal data, steps and FLOPs.

    python -m venv torch-env
    torch-env/bin/pip install torch numpy torch-pruning==1.6.1
    python benchmarks/arena.py --torch_python torch-env/bin/python --out results/arena.json

Every contestant of a row starts from the same seed network, sees the same number of batches of the
same training examples, with one optimizer and one schedule, and costs at most the same share of the
seed network's FLOPs, counted alike (`reg.flops`). What comes out is right on so many of 5,000
training examples that are held out, on which choices are made, and of the test examples, which are
only told with `--test`. `MODE, scratch` are the widths that a mode found, trained from scratch.

It is resumable run by run: what is in --out is not trained again. Two at a time, one per core:
`--part 0/2` and `--part 1/2`, with files of their own; `--merge` puts files together.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from arena_jax import Contest
from arena_rows import ROWS

from experiments.pictures.plots import Point, plot_tradeoff
from morph.files import write_text

HERE = Path(__file__).parent
BUDGETS = (0.5, 0.25)
TORCH = ("magnitude", "isomorphic", "taylor", "group_sl")
OURS = ("seed", "uniform", "uniform, spared ends", "morph", "morph.prune", "morph, scratch")
PEERS = (*(f"torch-pruning, {kind}" for kind in TORCH), "torch-pruning, group_sl, scratch")
Key = tuple[str, str, float, int]  # row, mode, budget, random seed


class Torch:
    """Torch-Pruning's side, a process that trains what it is told."""

    def __init__(self, python: str, name: str, contest: Contest) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "data.npz"
        arrays = {}
        for kind, data in contest.sets.items():
            own = kind.replace(" ", "_")
            arrays[f"{own}_x"] = np.ascontiguousarray(np.moveaxis(data.x, -1, 1))
            arrays[f"{own}_y"] = data.y.astype(np.int64)
        np.savez(path, **arrays)
        self.process = subprocess.Popen(
            [python, str(HERE / "arena_torch.py"), str(path), name, str(contest.row.steps)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions = self._read()

    def run(self, mode: str, budget: float, seed: int) -> dict[str, Any]:
        """Trains one contestant."""
        told = {"mode": mode, "budget": budget, "seed": seed}
        print(json.dumps(told), file=self.process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()

    def _read(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with code {self.process.wait()}")
        return json.loads(line)


def keys_of(args: argparse.Namespace) -> Iterator[Key]:
    """All runs that are asked for, those of a row together."""
    for row in args.rows:
        for seed in args.seeds:
            for mode in args.modes:
                for budget in (1.0,) if mode == "seed" else args.budgets:
                    yield row, mode, budget, seed


def summary(runs: Sequence[Mapping[str, Any]], score: str) -> list[dict[str, Any]]:
    """Per row, mode and budget: the mean and its spread over seeds, and differences to Morph.

    `behind` is how much less than `morph` it has, over the seeds that both have.
    """
    found: dict[tuple[str, str, float], dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        found.setdefault((run["row"], run["mode"], run["budget"]), {})[run["seed"]] = run
    points = []
    for (row, mode, budget), own in found.items():
        scores = [100 * run[score] for run in own.values()]
        ours = found.get((row, "morph", budget), {})
        behind = [100 * (ours[s][score] - own[s][score]) for s in own if s in ours]
        points.append(
            {
                "row": row,
                "mode": mode,
                "budget": budget,
                "runs": len(scores),
                "accuracy": round(statistics.mean(scores), 2),
                "spread": round(statistics.stdev(scores), 2) if len(scores) > 1 else None,
                "flops": round(statistics.mean(run["flops"] for run in own.values()), 4),
                "behind": round(statistics.mean(behind), 2) if behind else None,
            }
        )
    return sorted(points, key=lambda point: (point["row"], -point["budget"], -point["accuracy"]))


def told(points: Sequence[Mapping[str, Any]]) -> str:
    """A table of them."""
    lines = []
    for point in points:
        spread = "" if point["spread"] is None else f" ± {point['spread']:.1f}"
        behind = "" if point["behind"] is None else f"{point['behind']:+.2f} for morph"
        lines.append(
            f"{point['row']:14} {point['budget']:.0%}  {point['mode']:34} "
            f"{point['accuracy']:5.2f}{spread:7} ({point['runs']})  {point['flops']:.1%}  {behind}"
        )
    return "\n".join(lines)


def draw(points: Sequence[Mapping[str, Any]], row: str, path: Path) -> None:
    """Accuracy against FLOPs of one row."""
    drawn = [
        Point(
            series=point["mode"],
            label="",
            cost=point["flops"],
            accuracy=point["accuracy"] / 100,
            spread=(point["spread"] or 0.0) / 100,
            runs=point["runs"],
        )
        for point in points
        if point["row"] == row
    ]
    plot_tradeoff(drawn, path, cost="FLOPs", title=f"{row}, {ROWS[row].steps} steps")


def main() -> None:
    """Trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=ROWS)
    parser.add_argument("--modes", nargs="*", default=[*OURS, *PEERS])
    parser.add_argument("--budgets", type=float, nargs="*", default=BUDGETS)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--torch_python", help="the interpreter that has Torch-Pruning")
    parser.add_argument("--steps", type=int, help="in place of the rows' own, to try it out")
    parser.add_argument("--part", default="0/1", help="of how many processes this is which")
    parser.add_argument("--merge", type=Path, nargs="*", default=[], help="files of other parts")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--test", action="store_true", help="tell of test examples")
    parser.add_argument("--figure", type=Path, help="draw one row to this path")
    args = parser.parse_args()
    runs: list[dict[str, Any]] = []
    versions: dict[str, str] = {name: version(name) for name in ("jax", "flax", "optax")}
    for path in [args.out, *args.merge]:
        if path.exists():
            there = json.loads(path.read_text())
            runs += [run for run in there["runs"] if key_of(run) not in {*map(key_of, runs)}]
            versions |= there["versions"]
    contests: dict[str, Contest] = {}
    peers: dict[str, Torch] = {}
    number, parts = map(int, args.part.split("/"))
    together: dict[Key, int] = {}  # those that need each other's widths
    for key in keys_of(args):
        row, mode, budget, seed = key
        base = mode.removesuffix(", scratch")
        part = together.setdefault((row, base, budget, seed), len(together))
        if part % parts != number or key in {*map(key_of, runs)}:
            continue
        if row not in contests:
            own = {} if args.steps is None else {"steps": args.steps}
            contests[row] = Contest(replace(ROWS[row], **own))
        contest = contests[row]
        if mode.startswith("torch-pruning, ") or mode == "torch, uniform":
            if args.torch_python is None:
                raise SystemExit(f"{mode} needs --torch_python; or leave it out of --modes")
            if row not in peers:
                peers[row] = Torch(args.torch_python, row, contest)
                versions |= peers[row].versions
            result = peers[row].run(mode.split(", ", 1)[1], budget, seed)
        else:
            if mode != base and (row, base, budget, seed) not in {*map(key_of, runs)}:
                raise SystemExit(f"{mode} needs a run of {base}, before it or by --merge")
            widths = {
                run["mode"]: run["architecture"]
                for run in runs
                if key_of(run)[0] == row and key_of(run)[2:] == (budget, seed)
                if run.get("architecture")
            }
            result = contest.run(mode, budget, seed, widths)
        runs.append({"row": row, "mode": mode, "budget": budget, "seed": seed, **result})
        print(*key, f"{result['held_out']:.4f} {result['flops']:.4f} {result['seconds']:.0f} s")
        sys.stdout.flush()
        save(args, runs, versions)
    for peer in peers.values():
        peer.close()
    save(args, runs, versions)
    print(told(summary(runs, "test" if args.test else "held_out")))
    if args.figure:
        draw(summary(runs, "test" if args.test else "held_out"), args.rows[0], args.figure)


def key_of(run: Mapping[str, Any]) -> Key:
    """What tells a run from others."""
    return run["row"], run["mode"], run["budget"], run["seed"]


def save(
    args: argparse.Namespace, runs: Sequence[Mapping[str, Any]], versions: Mapping[str, str]
) -> None:
    """Writes everything."""
    found = {
        "command": shlex.join(["python", *sys.argv]),
        "device": jax.devices()[0].device_kind,
        "versions": versions,
        "test": summary(runs, "test") if args.test else [],
        "held out": summary(runs, "held_out"),
        "runs": runs,
    }
    write_text(args.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
