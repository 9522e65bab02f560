import struct

import pytest

from experiments.pictures import plots
from morph.errors import MissingExtraError

pytest.importorskip("matplotlib")


def png_size(path):
    """Returns the width and height that a PNG file's header tells."""
    header = path.read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    return struct.unpack(">II", header[16:24])


def rows(count):
    return [(f"Block_{i}/Conv_0", 16 + i, (7 * i) % (17 + i), (9 * i) % 40) for i in range(count)]


def run(*phases, start=0, own_steps=False):
    """Returns records of phases (name, steps), with every field in the first one."""
    records, step = [], start
    for name, count in phases:
        for i in range(count):
            record = {"phase": name, "step": i if own_steps else step + i, "loss": 2.0 / (1 + i)}
            if name == "shrink":
                record |= {"cost_ratio": 1 - i / 100, "target_ratio": 1 - i / 90, "strength": 1e-3}
            if i % 5 == 0:
                record["test_accuracy"] = i / 100
            records.append(record)
        step += count
    return records


@pytest.mark.parametrize("count", [1, 5, 20, 60, 100])
def test_plot_widths_writes_a_legible_file(tmp_path, count):
    plots.plot_widths(rows(count), tmp_path / "widths.png", "A title")
    width, height = png_size(tmp_path / "widths.png")
    assert width > 1000
    # Columns of at most 32 layers: text keeps its size, and the picture stays on a screen.
    assert 350 < height < 1600
    assert (tmp_path / "widths.png").stat().st_size > 10_000


def test_plot_widths_shows_names_and_widths(tmp_path):
    path = tmp_path / "widths.svg"
    long = "params/" + "encoder/" * 9 + "kernel"
    rows = [("Conv_0", 16, 9, 12), ("Conv_1", 32, 0, 0), (long, 8, 8, 8), ("D", 10, 11, 13)]
    with plots.mpl.rc_context({"svg.fonttype": "none"}):
        plots.plot_widths(rows, path, "ResNet-8 at half the FLOPs")
    text = path.read_text()
    for part in (
        "Conv_0",
        "12 / 16",
        "removed",
        "13 / 10",
        "…/encoder/encoder/encoder/kernel",
        "ResNet-8 at half the FLOPs",
        "final, wider than the seed",
    ):
        assert f">{part}</text>" in text
    assert long not in text


def test_plot_widths_of_networks_that_are_all_gone(tmp_path):
    plots.plot_widths([("Conv_0", 0, 0, 0)], tmp_path / "widths.png")
    assert png_size(tmp_path / "widths.png")[0] > 1000


def test_plot_widths_without_rows(tmp_path):
    with pytest.raises(ValueError, match="plot_widths needs at least one row"):
        plots.plot_widths([], tmp_path / "widths.png")


@pytest.mark.parametrize("row", [("a", 1, 2), ("a", 3, -1, 2)], ids=str)
def test_plot_widths_of_a_malformed_row(tmp_path, row):
    with pytest.raises(ValueError, match=r"\(name, seed, shrunk, final\), widths >= 0; got \('a'"):
        plots.plot_widths([("b", 1, 1, 1), row], tmp_path / "widths.png")


def test_plot_training_writes_every_panel_and_phase(tmp_path):
    path = tmp_path / "training.svg"
    records = run(("warm up", 30), ("shrink", 60), ("trim", 1), ("retrain", 50))
    with plots.mpl.rc_context({"svg.fonttype": "none"}):
        plots.plot_training(records, path)
    text = path.read_text()
    for part in ("Loss", "Test accuracy", "Cost, share of the seed", "alive cost", "target"):
        assert f">{part}</text>" in text
    for part in ("Strength λ", "warm up", "shrink", "retrain"):
        assert f">{part}</text>" in text
    assert ">trim</text>" not in text  # one step leaves no room for its name


def test_plot_training_leaves_out_what_nobody_measured(tmp_path):
    plots.plot_training(run(("retrain", 9)), tmp_path / "two.png")
    plots.plot_training(run(("shrink", 9)), tmp_path / "four.png")
    assert png_size(tmp_path / "two.png")[1] < 0.6 * png_size(tmp_path / "four.png")[1]


def test_plot_training_of_one_record_and_of_odd_values(tmp_path):
    plots.plot_training([{"phase": "shrink", "step": 7, "loss": 0.5}], tmp_path / "one.png")
    records = run(("shrink", 9))
    records[4]["loss"], records[5]["loss"], records[6]["loss"] = float("nan"), -1.0, None
    plots.plot_training(records, tmp_path / "odd.png")
    assert (tmp_path / "one.png").stat().st_size > 5_000
    assert (tmp_path / "odd.png").stat().st_size > 10_000


def test_timeline_of_steps_that_go_on():
    steps, phases = plots.timeline(run(("shrink", 3), ("retrain", 2), start=10))
    assert steps == [10, 11, 12, 13, 14]
    assert phases == [("shrink", 10, 12), ("retrain", 12, 14)]


def test_timeline_of_steps_that_start_again():
    records = run(("shrink", 3), ("retrain", 4), ("shrink", 2), own_steps=True)
    steps, phases = plots.timeline(records)
    assert steps == [0, 1, 2, 2, 3, 4, 5, 5, 6]
    assert phases == [("shrink", 0, 2), ("retrain", 2, 5), ("shrink", 5, 6)]


def test_plot_training_without_records(tmp_path):
    with pytest.raises(ValueError, match="plot_training needs at least one record"):
        plots.plot_training([], tmp_path / "training.png")


def test_plot_training_of_a_record_without_step(tmp_path):
    records = [{"phase": "shrink", "step": 1, "loss": 1.0}, {"phase": "shrink", "loss": 1.0}]
    with pytest.raises(ValueError, match=r"record 1 has no 'step', only \['loss', 'phase'\]"):
        plots.plot_training(records, tmp_path / "training.png")


def test_plot_training_of_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="found no loss, accuracy, cost or strength"):
        plots.plot_training([{"phase": "shrink", "step": 1}], tmp_path / "training.png")


@pytest.mark.parametrize(
    "plot",
    [lambda path: plots.plot_widths(rows(3), path), lambda path: plots.plot_training([], path)],
    ids=["widths", "training"],
)
def test_without_matplotlib_one_clear_message(tmp_path, monkeypatch, plot):
    monkeypatch.setattr(plots, "_missing", ModuleNotFoundError("No module named 'matplotlib'"))
    with pytest.raises(MissingExtraError, match=r"pip install 'morph-jax\[plots\]'"):
        plot(tmp_path / "plot.png")


def test_the_callers_settings_are_left_alone(tmp_path):
    plots.plot_widths(rows(3), tmp_path / "widths.png")
    assert plots.mpl.rcParams["font.size"] == plots.mpl.rcParamsDefault["font.size"]


@pytest.mark.parametrize("name", ["exp$x^{$", "_run", "a\x1b[2Jb", "100%\\frac"])
def test_whatever_a_run_is_called_it_is_drawn(tmp_path, name):
    points = [plots.Point(series=name, label="", cost=c, accuracy=c) for c in (0.5, 1.0)]
    plots.plot_tradeoff(points, tmp_path / "a.svg", cost=name, title=name)
    plots.plot_widths([(name, 3, 2, 1)], tmp_path / "b.png", name)
    plots.plot_training(
        [{"phase": name, "step": s, "loss": 1.0} for s in (0, 9)], tmp_path / "c.png"
    )
    assert plots.entry(name).strip() == plots.plain(name)
    assert not plots.entry(name).startswith("_")
