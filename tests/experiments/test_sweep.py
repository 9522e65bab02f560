"""The sweep's command line: what it leaves, and that nothing is trained twice."""

import json
import shlex
import subprocess

import pytest

from experiments import sweep
from experiments.report import read_run
from experiments.study import Shelf
from morph.cycle.sweep import Sweep

FLAGS = [
    "--seed_network=mlp", "--width=0.05", "--seed_steps=10", "--shrink_steps=40",
    "--retrain_steps=10", "--batch_size=32", "--budgets=0.75,0.5", "--seeds=0,1",
]  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("sweep")
    sweep.main(["sweep", *FLAGS, f"--workdir={workdir}"])
    return workdir


def failure(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        sweep.main(["sweep", *FLAGS, *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    return error


def test_every_network_is_there_and_within_its_budget(swept):
    results = json.loads((swept / "results.json").read_text())
    found = {(row["kind"], row["budget"], row["seed"]) for row in results["outcomes"]}
    kinds = ("learned", "shrunk", "uniform")
    members = {(kind, b, s) for kind in kinds for b in (0.5, 0.75) for s in (0, 1)}
    assert found == members | {("seed", 1.0, 0), ("seed", 1.0, 1)}
    for row in results["outcomes"]:
        assert row["cost"] <= row["budget"] * results["seed_cost"]
    for kind in kinds:
        assert (swept / f"seed-1/budget-0.5/{kind}.json").exists()
        assert (swept / f"seed-1/budget-0.5/{kind}").is_dir()
    by_kind = {(p["series"], p["label"]): p for p in results["points"]}
    assert by_kind[("uniform width", "50%")]["runs"] == 2
    assert by_kind[("uniform width", "50%")]["spread"] is not None
    assert (swept / "tradeoff.png").stat().st_size > 5000
    assert "uniform width" in (swept / "report.html").read_text()
    assert len(read_run(swept).points) == 7


def test_what_is_there_is_not_trained_again(swept, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("trained again")

    before = json.loads((swept / "results.json").read_text())["outcomes"]
    older = json.loads((swept / "config.json").read_text())
    for name in ("mixup", "penalty"):  # as if this version were the first to have them
        del older[name]
    (swept / "config.json").write_text(json.dumps(older))
    for name in ("train_seeds", "shrink", "retrain"):
        monkeypatch.setattr(Sweep, name, never)
    sweep.main(["sweep", *FLAGS, f"--workdir={swept}", "--how=turn"])
    assert json.loads((swept / "results.json").read_text())["outcomes"] == before
    with pytest.raises(AssertionError, match="trained again"):
        sweep.main(["sweep", *FLAGS, f"--workdir={swept}", "--budgets=0.6,0.5", "--only=0.6"])


def test_every_budget_has_a_process(swept, monkeypatch):
    command = shlex.join(["python", "-m", "experiments.sweep", *FLAGS, f"--workdir={swept}"])
    with pytest.raises(sweep.ConfigError, match=r"budget 0\.4 failed: error: --only=0\.4 is none"):
        sweep.in_processes([0.4], 1, command)

    def here(arguments, **kwargs):
        sweep.main(arguments[3:])
        asked.append(arguments[-1])
        return subprocess.CompletedProcess(arguments, 0)

    asked = []
    monkeypatch.setattr(subprocess, "run", here)
    monkeypatch.setattr(Sweep, "shrink", None)  # all is there
    sweep.in_processes([0.5, 0.75], 1, command)
    assert asked == ["--only=0.5", "--only=0.75"]


def test_budgets_that_agree_to_six_digits_have_folders_of_their_own(tmp_path):
    shelf = Shelf(workdir=tmp_path, report={})
    budgets = (1.0, 0.5, 0.5000001, 0.5000002)
    files = [shelf.file("shrunk", 0, budget).parent.name for budget in budgets]
    assert files == ["budget-1", "budget-0.5", "budget-0.5000001", "budget-0.5000002"]


def test_nonsense_is_refused(capsys, tmp_path, swept):
    where = f"--workdir={tmp_path / 'never'}"
    assert "--budgets: 'half' is no float" in failure(capsys, where, "--budgets=1,half")
    assert "seed must be in [0, 4294967296), found -1" in failure(capsys, where, "--seeds=-1")
    assert "--only=0.3 is none of the budgets (0.75, 0.5)" in failure(capsys, where, "--only=0.3")
    assert "cannot meet a budget" in failure(capsys, where, "--budgets=0.0001")
    assert "found 1.5" in failure(capsys, where, "--budgets=1.5")
    assert "how" in failure(capsys, where, "--how=magic")
    assert not (tmp_path / "never").exists()
    config = swept / "config.json"
    written = config.read_text()
    config.write_text(json.dumps({**json.loads(written), "later": 1}))
    error = failure(capsys, f"--workdir={swept}")
    assert "later: 1 there, nothing that this version knows" in error
    config.write_text(written)
    error = failure(capsys, f"--workdir={swept}", "--shrink_steps=50")
    assert "shrink_steps: 40 there, 50 asked for" in error


def test_every_budget_is_a_job_and_one_that_fails_is_a_row(swept, monkeypatch, capsys):
    def run_jobs(commands, folder, how, *, done, **more):
        asked.update(commands)
        failed = dict.fromkeys(commands, "error: no room")
        for name, why in failed.items():
            done(name, why)
        return failed

    asked = {}
    monkeypatch.setattr(sweep, "run_jobs", run_jobs)
    monkeypatch.setattr(Sweep, "shrink", None)  # what failed is not trained here
    sweep.main(["sweep", *FLAGS, f"--workdir={swept}", "--budgets=0.6,0.5", "--how=local"])
    assert list(asked) == ["0.6"]  # what is there needs no job
    assert asked["0.6"][-2:] == ["--how=turn", "--only=0.6"]
    assert "budget 0.6: error: no room" in capsys.readouterr().out
    results = json.loads((swept / "results.json").read_text())
    assert results["failed"] == [{"budget": 0.6, "why": "error: no room"}]
    assert {row["budget"] for row in results["outcomes"]} == {1.0, 0.5}
