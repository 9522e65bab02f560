import io
import re

import pytest
from rich.console import Console

from experiments.console import display
from experiments.console.display import Display, Result


class Clock:
    """A clock that a test sets by hand."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def make(*, terminal=False, **options):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=110, _environ={})
    clock = Clock()
    seldom = 1e-3  # a second: what the test tells is all that is drawn
    return Display(console=console, clock=clock, live_refresh_per_s=seldom, **options), out, clock


def printed(renderable, width=110):
    out = io.StringIO()
    Console(file=out, width=width, _environ={}).print(renderable)
    return out.getvalue()


@pytest.mark.parametrize(
    ("number", "unit", "expected"),
    [
        (2_430_000, "FLOP", "2.43 MFLOP"),
        (3_869_716_480, "FLOP", "3.87 GFLOP"),
        (78_042, "", "78.0 k"),
        (272_474, "", "272 k"),
        (999_499, "", "999 k"),
        (999_999, "", "1.00 M"),
        (999, "B", "999 B"),
        (0, "B", "0 B"),
        (0.0, "", "0"),
        (-1500, "", "-1.50 k"),
        (0.00124, "s", "1.24 ms"),
        (2.5e-12, "s", "0.00250 ns"),
        (1e20, "FLOP", "100000 PFLOP"),
        (float("nan"), "s", "nan s"),
        (float("inf"), "", "inf"),
    ],
)
def test_humanize(number, unit, expected):
    assert display.humanize(number, unit) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0:00"), (59.6, "1:00"), (83, "1:23"), (3599.5, "1:00:00"), (90_061, "25:01:01")],
)
def test_duration(seconds, expected):
    assert display.duration(seconds) == expected


def test_plain_line_shows_everything():
    shown, out, clock = make(budget_ratio=0.5, seed_widths={"a": 16, "b": 8, "c": 4, "d": 4})
    with shown:
        shown.phase("shrink", total_steps=2000)
        shown.update(200, loss=2.0)
        clock.now_s += 10
        shown.update(
            1200,
            loss=0.41234,
            accuracy=0.912,
            cost_ratio=0.631,
            target_ratio=0.6,
            strength=3.2e-3,
            widths={"a": 16, "b": 4, "c": 1, "d": 0},
            grad_norm=1.5,
        )
    (line,) = out.getvalue().splitlines()
    assert line == (
        "shrink 1200/2000 (60 %) | 100 steps/s | 0:08 left | loss 0.4123 | accuracy 91.2 % | "
        "cost 63.1 % of seed | target 60.0 % | budget 50.0 % | λ 3.20e-03 | grad_norm 1.5 | "
        "widths 21/32 channels █▄▂·"
    )


def test_plain_lines_come_every_few_seconds_and_at_the_end():
    shown, out, clock = make(line_interval_s=5.0)
    with shown:
        shown.phase("retrain", total_steps=12)
        for step in range(1, 13):
            shown.update(step, loss=1.0)
            clock.now_s += 1
    steps = [line.split()[1] for line in out.getvalue().splitlines()]
    assert steps == ["6/12", "11/12", "12/12"]


def test_metrics_are_kept_and_only_read_when_drawn():
    class Unready:
        def __float__(self):
            raise AssertionError("read too early")

    shown, out, clock = make(line_interval_s=5.0)
    with shown:
        shown.phase("shrink", total_steps=9)
        shown.update(1, loss=1.0, test_accuracy=0.5)
        shown.update(2, loss=Unready())
        clock.now_s += 6
        shown.update(3, loss=0.25, test_accuracy=None)
    assert "loss 0.25 | test accuracy 50.0 %" in out.getvalue()


def test_each_phase_ends_with_its_last_state():
    shown, out, _ = make()
    with shown:
        shown.phase("shrink", total_steps=3)
        shown.update(1)
        shown.update(3)
        shown.phase("trim", total_steps=0)
        shown.phase("expand", total_steps=1)
        shown.update(1)
    assert [line.split(" |")[0] for line in out.getvalue().splitlines()] == [
        "shrink 3/3 (100 %)",
        "expand 1/1 (100 %)",
    ]


def test_a_log_without_unicode_is_no_reason_to_stop():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    with Display(console=Console(file=out, _environ={})) as shown:
        shown.phase("shrink", total_steps=3)
        shown.update(1, strength=0.5, widths={"a": 3})
    out.flush()
    line = raw.getvalue().decode("ascii")
    assert line == "shrink 1/3 (33 %) | ? 5.00e-01 | widths 3/3 channels ?\n"


def test_terminal_panel():
    shown, out, clock = make(terminal=True, budget_ratio=0.5, seed_widths={"a": 16, "b": 8})
    with shown:
        shown.phase("shrink", total_steps=2000)
        shown.update(200, loss=2.0)
        clock.now_s += 10
        shown.update(1200, cost_ratio=0.631, strength=3e-3, widths={"a": 12, "b": 2})
        shown.print("a note")
    text = out.getvalue()
    for part in (
        "shrink",
        "━━━",
        "1,200/2,000",
        "100 steps/s",
        "0:08 left",
        "cost 63.1 % of seed",
        "budget 50.0 %",
        "λ 3.00e-03",
        "widths 14/24 channels ▆▂",
        "a note",
    ):
        assert part in text
    assert text.endswith("\x1b[?25h")  # the cursor is back


def test_a_phase_that_has_ended_leaves_one_line_on_a_terminal():
    shown, out, clock = make(terminal=True)
    with shown:
        shown.phase("seed", total_steps=20)
        assert "compiling, 0 s" in out.getvalue()
        clock.now_s += 12
        shown.update(1, loss=2.0)
        shown.update(20, loss=1.0)
        shown.phase("shrink", total_steps=9)
        before = out.getvalue()
    assert "seed 20/20 (100 %)" in before
    assert before.count("━") == before.split("seed 20/20")[0].count("━")  # no bar is left behind


def test_terminal_is_given_back_after_an_error():
    shown, out, _ = make(terminal=True)
    shown_then_failed = pytest.raises(FloatingPointError, match="loss is NaN")
    with shown_then_failed, shown:
        shown.phase("shrink", total_steps=3)
        shown.update(1, loss=float("nan"))
        raise FloatingPointError("loss is NaN")
    assert "loss nan" in out.getvalue()
    assert out.getvalue().endswith("\x1b[?25h")


def test_terminal_redraws_no_faster_than_its_interval():
    shown, out, _ = make(terminal=True)
    with shown:
        shown.phase("shrink", total_steps=1000)
        shown.update(1)
        length = len(out.getvalue())
        for step in range(2, 1000):
            shown.update(step)
        assert len(out.getvalue()) == length


def test_update_before_any_phase():
    shown, _, _ = make()
    with shown, pytest.raises(RuntimeError, match=r"update\(step=3\) before any phase"):
        shown.update(3)


def test_width_table():
    rows = [("Conv_0", 16, 9, 12), ("Conv_1", 32, 0, 0), ("Conv_2[x]", 32, 32, 48)]
    lines = printed(display.width_table(rows, title="ResNet-8")).splitlines()
    assert lines[0].strip() == "ResNet-8"
    for heading in ("group", "seed", "shrunk", "final"):
        assert heading in lines[2]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines[4:7]]
    assert [row[:4] for row in cells] == [
        ["Conv_0", "16", "9", "12"],
        ["Conv_1", "32", "0", "0"],
        ["Conv_2[x]", "32", "32", "48"],
    ]
    assert [row[4] for row in cells] == ["█" * 5, "removed", "█" * 20]


def test_width_table_of_nothing():
    assert "group" in printed(display.width_table([]))
    assert "removed" in printed(display.width_table([("a", 3, 0, 0)]))


def test_result_table():
    results = [
        Result(name="seed", accuracy=0.9712, flops=2_430_000, parameters=78_042, steps=1200),
        Result(name="shrunk", flops=1_215_000, parameters=40_000, steps=7),
        Result(name="expanded & retrained", accuracy=0.98, flops=2_400_000, parameters=80_000),
    ]
    text = printed(display.result_table(results))
    assert cells_of(text)[-3:] == [
        ["seed", "1,200", "97.1 %", "2.43 M", "100.0", "78.0 k", "100.0"],
        ["shrunk", "7", "–", "1.22 M", "50.0", "40.0 k", "51.3"],
        ["expanded & retrained", "–", "98.0 %", "2.40 M", "98.8", "80.0 k", "102.5"],
    ]
    assert "accuracy" in text
    assert "latency" not in text
    assert "here" not in text


def cells_of(text):
    """The cells of each line of a table without lines."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines()]


def test_result_table_has_times_where_they_were_measured_and_80_columns():
    kwargs = {"accuracy": 1.0, "flops": 1_531_000, "parameters": 77_777, "steps": 1000}
    results = [
        Result(name="seed", seconds=41.2e-6, **kwargs),
        Result(name="fine-tuned", seconds=20.6e-6, **kwargs),
        Result(name="elsewhere", **kwargs),
    ]
    text = printed(display.result_table(results), 80)
    times = [row[-2:] for row in cells_of(text)[-3:]]
    assert times == [["41.2 µs", "100.0"], ["20.6 µs", "50.0"], ["–", "–"]]
    assert "fine-tuned" in text
    assert max(map(len, text.splitlines())) <= 80


def test_result_table_with_latency():
    results = [
        Result(name="seed", flops=2e6, parameters=10, cost=2e-3),
        Result(name="shrunk", flops=1e6, parameters=5, cost=1.5e-3),
        Result(name="expanded", flops=1e6, parameters=5),
    ]
    text = printed(display.result_table(results, cost="latency", unit="s"))
    assert "cost: latency" in text
    rows = cells_of(text)[-3:]
    assert [row[3:5] for row in rows] == [["2.00 ms", "100.0"], ["1.50 ms", "75.0"], ["–", "–"]]


def test_result_table_of_nothing():
    with pytest.raises(ValueError, match="at least the seed's Result"):
        display.result_table([])


def test_where_it_is_narrow_names_are_folded_and_figures_are_whole():
    row = ("batch_stats/Block_1/ConvNormRelu_0/BatchNorm_0/mean", "2,691", "13.7")
    text = printed(display.figure_table("The file", ("leaf", "weight bits", "rate"), [row]), 40)
    lines = [line.split() for line in text.splitlines()]
    assert ["weight"] in lines
    assert ["leaf", "bits", "rate"] in lines
    assert any(line[1:] == ["2,691", "13.7"] for line in lines)
    assert "".join(line[0] for line in lines[3:]) == row[0]
