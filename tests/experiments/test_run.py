"""The command line: what a run leaves behind, and what it says when asked for nonsense."""

import json

import pytest
from absl import flags

from experiments import datasets, run
from experiments.console import flags as settings
from morph.architecture.architecture import Architecture
from morph.cycle.config import CycleConfig
from morph.settings import settings_of

TINY = [
    "--seed_network=mlp",
    "--width=0.2",
    "--budget=0.6",
    "--shrink_to=0.5",
    "--final=scratch",
    "--seed_steps=20",
    "--shrink_steps=40",
    "--retrain_steps=20",
    "--penalty=group_lasso",
]


def launch(*arguments):
    """Runs `main` as the command line would, flags and all."""
    run.main(["run.py", *arguments])


def scalars(folder):
    """The tags of the scalars in a folder for TensorBoard."""
    (file,) = folder.glob("events*")
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    data = file.read_bytes()
    tags, place = set(), 0
    while place < len(data):  # length, its checksum, the event, its checksum
        length = int.from_bytes(data[place : place + 8], "little")
        event = event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
        tags |= {value.tag for value in event.summary.value}
        place += length + 16
    return tags


def failure(capsys, *arguments):
    """What a run that cannot work ends with: one line, or a list of what stands in the way."""
    with pytest.raises(SystemExit) as stop:
        launch(*arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1 or "install" in error or "most of it in" in error
    return error


def test_a_run_leaves_everything_and_repeats_its_tables(tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "out"
    launch(*TINY, "--tensorboard", "--baselines=uniform", f"--workdir={workdir}")
    printed = capsys.readouterr().out
    for word in ("seed", "shrunk", "expanded", "Dense_0", "FLOP", "same predictions"):
        assert word.lower() in " ".join(printed.split()).lower()
    results = json.loads((workdir / "results.json").read_text())
    outcomes = {outcome["name"]: outcome for outcome in results["outcomes"]}
    assert 0.96 * 0.5 <= outcomes["shrunk"]["flops"] / outcomes["seed"]["flops"] <= 0.5
    assert outcomes["shrunk"]["logit_difference"] < 1e-5
    assert "--shrink_to=0.5" in results["command"]
    assert results["measured"].keys() == outcomes.keys() >= {"seed", "uniform"}
    assert "time" in printed.split("Before and after")[1].splitlines()[1]
    architecture = Architecture.load(workdir / "architecture.json")
    assert architecture.widths == outcomes["expanded and retrained"]["widths"]
    for name in ("widths.png", "training.png"):
        assert (workdir / name).stat().st_size > 5000
    assert {"seed/loss", "shrink/cost_ratio", "shrink/widths/Dense_0", "retrain/loss"} <= set(
        scalars(workdir / "tensorboard")
    )
    written = [workdir / name for name in ("results.json", "report.html", "widths.png")]
    for path in written:
        path.unlink()

    def show(*args, **named):
        assert all(path.exists() for path in written)
        shown(*args, **named)

    shown = run.show
    monkeypatch.setattr(run, "show", show)
    launch(*TINY, "--baselines=uniform", f"--workdir={workdir}")  # finished: shows, trains nothing
    assert "Dense_0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "known"),
    [
        ("--seed_network=resnet9", "resnet8"),
        ("--dataset=imagenet", "fashion_mnist"),
        ("--optimizer=adan", "adamw"),
        ("--final=warm", "finetune"),
        ("--ema_decay=-0.1", "ema_decay"),
        ("--batch_size=0", "batch_size"),
        ("--cycles=two", "cycles"),
    ],
)
def test_a_wrong_value_is_refused_and_the_known_ones_are_listed(capsys, flag, known):
    assert known in failure(capsys, flag)


def test_an_unknown_target_is_refused_and_near_ones_are_listed(capsys, tmp_path):
    error = failure(capsys, "--target=flop", f"--workdir={tmp_path / 'out'}")
    assert "no cost 'flop'; did you mean 'flops'" in error
    assert not (tmp_path / "out").exists()


def test_unknown_names_in_lists_are_refused_and_near_ones_are_listed(capsys):
    assert "did you mean 'accuracy'" in failure(capsys, "--metrics=accurracy")
    assert "did you mean 'flip'" in failure(capsys, "--augment=crop,flipp")
    assert "group_lasso" in failure(capsys, "--penalty=group_laso")


def test_every_setting_has_a_flag_with_its_default():
    own = flags.FlagValues()
    settings.define_settings(own)
    own(["run.py"])
    assert settings.config_of(own) == CycleConfig()
    for field in settings_of(CycleConfig):
        assert own[field.name].help.endswith(field.help)
        assert getattr(own[field.name].parser, "enum_values", []) == [*field.choices]
    own(["run.py", "--budget=2ms", "--shrink_to=none", "--warmup_steps=3", "--cycles=2"])
    config = settings.config_of(own)
    assert (config.budget, config.shrink_to, config.warmup_steps) == ("2ms", None, 3)
    own(["run.py", "--budget=0.25"])
    assert settings.config_of(own).budget == 0.25


def test_an_unknown_flag_and_a_stray_word_are_refused(capsys):
    assert "Did you mean: budget" in failure(capsys, "--budgett=0.5")
    retired = failure(capsys, "--expand_budget=none")
    assert "no --expand_budget any more: --budget is what" in retired
    assert "--baselines=whole,uniform names" in failure(capsys, "--baseline")
    assert "unexpected arguments: resnet8" in failure(capsys, "resnet8")


def test_a_missing_data_set_names_its_package(monkeypatch, capsys, tmp_path):
    def nowhere(name, data_dir):
        raise datasets.DatasetNotFoundError(f"{name}: apt-get install dataset-fashion-mnist")

    monkeypatch.setattr(datasets, "load", nowhere)
    error = failure(capsys, "--dataset=fashion_mnist", f"--workdir={tmp_path}")
    assert "dataset-fashion-mnist" in error


def test_budgets_out_of_reach(capsys, tmp_path):
    where = f"--workdir={tmp_path / 'never'}"
    assert "cannot meet a budget" in failure(capsys, *TINY, "--shrink_to=0.0001", where)
    more = [*TINY, "--budget=2", "--shrink_to=none", where]
    assert "at most its own cost" in failure(capsys, *more)
    assert not (tmp_path / "never").exists()


def test_a_working_directory_of_another_run(capsys, tmp_path):
    (tmp_path / "config.json").write_text('{"dataset": "mnist"}')
    error = failure(capsys, *TINY, f"--workdir={tmp_path}")
    assert "dataset: 'mnist' there, 'digits' asked for" in error


def test_a_workdir_that_cannot_be_made(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    error = failure(capsys, *TINY, f"--workdir={tmp_path}/file/run")
    assert "cannot use" in error
