"""Pages: everything is in them, nothing is fetched, and broken runs are told apart."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from experiments.pictures.plots import Point, pareto_front
from experiments.report import read_run, write_report
from experiments.report.__main__ import main
from experiments.report.charts import Bar, bar_chart, nice_ticks, tradeoff_chart
from experiments.report.networks import network_chart, networks_section
from morph.architecture.parts import Removed
from morph.kernels.factorized import STACK
from morph.kernels.formats import FORMATS
from morph.kernels.planned import PlannedKernel
from regularizers.errors import MorphError

VOID = {"meta"}


class Page(HTMLParser):
    """Checks that tags close, and collects what a reader, or a browser, would look at."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_at(path):
    return Page(path.read_text())


def test_a_page_has_all_of_a_run_and_fetches_nothing(make_run):
    page = page_at(write_report(make_run("run")))
    for words in (
        "mlp on digits", "90.0 %", "seed 95.0 %", "Dense_0", "Cost per layer", "Strength λ",
        "25bb209edf45b400", "python -m experiments.run --x='<b>'", "1 min 23 s", "batch_size",
        "10 / 15",
    ):  # fmt: skip
        assert words in page.text or words == "batch_size", words
    assert "script" not in page.tags
    assert not [a for a in page.attributes if a[1] in ("src", "href")]
    # Widths, costs, and four curves.
    assert len([a for a in page.attributes if a[1:] == ("role", "img")]) == 6
    assert page.text.count("before and after; 2 changed") == 1  # what a chart says in words


def test_an_axis_of_shares_ends_at_100_percent():
    points = [Point(series="a", label="", cost=cost, accuracy=0.99) for cost in (0.5, 1.0)]
    assert "100 %" in tradeoff_chart(points, "")
    assert "102 %" not in tradeoff_chart(points, "")


def test_words_in_charts_are_never_small_and_tables_do_not_break_words(make_run):
    text = write_report(make_run("run")).read_text()
    drawn = re.findall(r'style="min-width:(\d+)px" viewBox="\S+ \S+ (\d+) ', text)
    assert len(drawn) == 6
    assert all(12 * int(least) / int(width) >= 11 for least, width in drawn)  # of 12 as drawn
    assert "svg text { fill: var(--muted); font-size: 12px" in text
    cells = re.search(r"th, td \{([^}]*)\}", text)[1]
    assert "white-space: nowrap" in cells
    assert "anywhere" not in cells
    assert text.count("<table") + len(drawn) == text.count('<div class="scroll" tabindex="0">')


def test_a_run_that_is_not_finished_is_told_as_far_as_it_came(make_run):
    place = make_run("early", finished=False)
    assert len(read_run(place).records) == 2  # the line that was cut off is left out
    text = page_at(write_report(place)).text
    assert "not finished" in text
    assert "No network was tested yet" in text
    assert "Loss" in text


def test_removed_blocks_are_struck_out(make_run):
    place = make_run("blocks")
    architecture = read_run(place).architecture
    gone = Removed(name="Block_9", kind="residual", variables=(), layers=("Dense_1",))
    replace(architecture, removed=(gone,)).save(place / "architecture.json")
    page = page_at(write_report(place))
    assert "1 block removed" in page.text
    assert "Block_9 residual" in page.text
    assert ("g", "class", "removed") in page.attributes


def test_a_sweep_has_its_curve(make_run):
    place = make_run("sweep")
    results = json.loads((place / "results.json").read_text())
    seed, small = results["outcomes"]
    results["outcomes"] = [
        {**seed, "kind": "seed", "budget": 1.0, "seed": 0},
        {**small, "kind": "learned", "budget": 0.5, "seed": 0},
    ]
    points = [
        {"series": "learned", "label": "50%", "cost": 0.5, "accuracy": 0.9, "spread": 0.01,
         "runs": 3},
        {"series": "uniform", "label": "50%", "cost": 0.5, "accuracy": 0.8},
    ]  # fmt: skip
    (place / "results.json").write_text(json.dumps({**results, "points": points}))
    text = page_at(write_report(place)).text
    assert "90.00 % ± 1.00 % 3" in text
    assert "Pareto front" in text
    assert "standard deviation 1.00% of 3 runs" in text


def tensorized(kind, shape, roles, rank=3, stack=0, **how):
    format, sizes = FORMATS[kind](shape, roles, **how)
    sizes = {label: min(n, rank) if label in format.bonds else n for label, n in sizes.items()}
    if stack:
        format, sizes, roles = format.stacked(0), {**sizes, STACK: stack}, f"b{roles}"
    return PlannedKernel(
        path="", roles=roles, format=format, sizes=sizes, error=0.125, costs={"flops": (4e4, 2e4)}
    )


def test_tensor_networks_are_drawn_and_told(make_run):
    place = make_run("networks")
    architecture = read_run(place).architecture
    path = "params/Dense_0/kernel"
    kernel = tensorized("tt", architecture.shape(path), "io", cores=2)
    kernel = replace(kernel, path=path, notes=("r1: <cut>",))
    architecture.tensorized({path: kernel}).save(place / "architecture.json")
    page = page_at(write_report(place))
    factors = " × ".join("·".join(map(str, own)) for own in kernel.factors)
    for words in (
        "Tensor networks",
        f"Dense_0 tt {factors} 3 12.5 %",
        "40.0 kFLOP 20.0 kFLOP",
        "Dense_0: r1: <cut>.",
        "input output bond, its dimension",  # no window
        "a tt network for",
    ):
        assert words in page.text, words
    assert page.tags.count("figure") == 1


CHARTED = [
    ("svd", (784, 300), "io", {}),
    ("svd", (3, 3, 6, 5), "ssio", {"stack": 7}),
    ("tucker2", (3, 3, 64, 128), "ssio", {"rank": 200}),
    ("tucker", (3, 5, 5, 64, 128), "sssio", {"stack": 1000}),
    ("cp", (64, 8, 16), "ioo", {}),
    ("cp", (3, 3, 64, 128), "ssio", {}),
    ("tt", (4096, 4096), "io", {"cores": 8}),
    ("tt", (3, 3, 64, 128), "ssio", {"cores": 3}),
    ("tt", (17, 13), "io", {"cores": 1}),
]


ANCHORS = ("begin", "middle", "end")


@pytest.mark.parametrize(("kind", "shape", "roles", "how"), CHARTED)
def test_no_parts_of_a_network_cover_each_other(kind, shape, roles, how):
    kernel = tensorized(kind, shape, roles, **how)
    (svg,) = ElementTree.fromstring(network_chart(kernel, "a network"))
    left, top, width, height = map(float, svg.attrib["viewBox"].split())
    numbers = [text for text in svg.iter("text") if text.text.isdigit()]
    sizes = [n for label, n in kernel.sizes.items() if label != STACK]
    assert sorted(int(text.text) for text in numbers) == sorted(sizes)
    places = [
        (float(rect.get("x")), float(rect.get("y")), float(rect.get("width")), 32.0)
        for rect in svg.iter("rect")
        if rect.get("class") == "box"
    ]
    assert len(places) == len(kernel.format.names)
    for text in numbers:
        long = 8.0 * len(text.text)  # no digit of 12 px is wider
        shift = next(k for k, kind in enumerate(ANCHORS) if kind in text.get("class").split()) / 2
        places.append(
            (float(text.get("x")) - shift * long, float(text.get("y")) - 10.0, long, 12.0)
        )
    for k, (x, y, across, down) in enumerate(places):
        assert left <= x <= x + across <= left + width
        assert top <= y <= y + down <= top + height
        for x1, y1, across1, down1 in places[:k]:
            beside = x + across <= x1 or x1 + across1 <= x
            assert beside or y + down <= y1 or y1 + down1 <= y, (x, y, x1, y1)


def test_many_networks_are_folded_away():
    kernel = tensorized("svd", (6, 5), "io")
    for count, folded in ((12, 0), (15, 1)):
        kernels = {f"params/a_{k}/kernel": kernel for k in range(count)}
        page = Page(networks_section(kernels, ("size", "")))
        assert page.tags.count("figure") == count
        assert page.tags.count("details") == folded
        assert ("3 more" in page.text) == bool(folded)


def test_charts_bear_extremes():
    for bars in ([Bar(name="x", seed=0, now=0)], [Bar(name="é<" * 99, seed=7, now=9)] * 100):
        Page(bar_chart(bars, "bars"))
    one = Point(series="a", label="", cost=1.0, accuracy=0.5)
    Page(tradeoff_chart([one], "one point"))
    assert nice_ticks(0.5, 0.5, 4) == [0.5]
    assert nice_ticks(-1.0, 1.0, 4) == [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_the_front_is_what_nothing_beats():
    points = [
        Point(series="a", label=str(k), cost=cost, accuracy=accuracy)
        for k, (cost, accuracy) in enumerate([(1.0, 0.9), (0.5, 0.9), (0.2, 0.3), (0.5, 0.4)])
    ]
    assert [point.label for point in pareto_front(points)] == ["2", "1"]


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("results.json", "{", "results.json is broken"),
        ("config.json", "[1]", "expected an object, found list"),
        ("metrics.jsonl", "oops\n{}\n", "broken: line 1: Expecting value"),
        ("architecture.json", "{}", "not an architecture"),
    ],
)
def test_a_broken_file_is_named(make_run, file, text, told):
    place = make_run("run")
    (place / file).write_text(text)
    with pytest.raises(MorphError, match=told):
        write_report(place)


def test_the_command_tells_what_is_no_run(make_run, tmp_path, capsys):
    main(["report", str(make_run("fine"))])
    assert capsys.readouterr().out.strip().endswith("fine/report.html")
    for place, told in ((tmp_path / "none", "is not a directory"), (tmp_path, "holds no run")):
        with pytest.raises(SystemExit) as stop:
            main(["report", str(place)])
        assert stop.value.code == 2
        assert told in capsys.readouterr().err


def test_a_page_fetches_nothing_and_runs_nothing(make_run):
    page = write_report(make_run("run")).read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page
    assert page.index("Content-Security-Policy") < page.index("<style>")
