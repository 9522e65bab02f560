"""Pictures of costs: every bar and dot is what the cost says, and all of it is legible."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import regularizers as reg
from experiments.networks import build
from experiments.pictures import cost_plots, cost_rows, plots
from morph.errors import MissingExtraError
from regularizers.named import cost_named

agg = pytest.importorskip("matplotlib.backends.backend_agg")
Text = pytest.importorskip("matplotlib.text").Text

COSTS = ("edge_tpu", "V100", "activation_peak", "flops")


class Chain(nn.Module):
    """More convolutions than there are rows; one of them is far the widest."""

    @nn.compact
    def __call__(self, x):
        for i in range(cost_rows.MOST_ROWS + 5):
            x = nn.Conv(32 if i == 7 else 4 + i % 3, (1, 1), use_bias=False)(x)
        return x


def trace(model, *shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return reg.trace_channels(model.apply, jax.eval_shape(model.init, jax.random.key(0), x), x)


@pytest.fixture(scope="module")
def resnet():
    return trace(build("resnet8", input_shape=(32, 32, 3), num_classes=5), 1, 32, 32, 3)


@pytest.fixture(scope="module")
def chain():
    return trace(Chain(), 1, 5, 7, 3)


def named(graph, *names):
    return {name: cost_named(graph, name) for name in names}


def axes_of(figure, title):
    (found,) = [ax for ax in figure.axes if ax.get_title(loc="left").startswith(title)]
    return found


def rows_of(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_one_panel_of_bars_per_cost_and_one_bar_per_row(resnet):
    figure = cost_plots.draw_costs(resnet, named(resnet, *COSTS), "net")
    rows = rows_of(figure)
    products = [row for row in rows if row in resnet.layers]
    assert products == list(resnet.layers)  # in the order of the network
    assert rows[0] == "(inputs)"
    assert rows[-2:] == ["(start, input, output)", "3 others"]
    for name in COSTS:
        assert len(axes_of(figure, f"{name}: ").patches) == len(rows)
    assert figure.get_suptitle() == "net"


def test_bars_are_the_costs_in_the_unit_of_the_axis(resnet):
    flops, peak = named(resnet, "flops", "activation_peak").values()
    figure = cost_plots.draw_costs(resnet, {"flops": flops, "activation_peak": peak})
    ax = axes_of(figure, "flops: ")
    assert ax.get_xlabel() == "MFLOP"
    lengths = dict(zip(rows_of(figure), (bar.get_width() for bar in ax.patches), strict=True))
    table = {row.layer: row for row in flops.table()}
    for layer, row in table.items():
        assert lengths[layer] == pytest.approx(row.cost / 1e6)
        assert f"{row.share:.1%}" in texts(ax)
    assert sum(lengths.values()) == pytest.approx(flops() / 1e6)
    other = axes_of(figure, "activation_peak: ")
    assert other.get_xlabel() == "kB"
    assert sum(bar.get_width() for bar in other.patches) == pytest.approx(peak() / 1e3)


def test_the_roofline_is_drawn_with_its_ridge_and_labels(resnet):
    figure = cost_plots.draw_costs(resnet, named(resnet, "V100", "flops", "activation_peak"))
    assert len(figure.axes) == 3 + 1  # of these only one is a time
    ax = axes_of(figure, "Roofline of V100, float32")
    (dots,) = ax.collections
    assert len(dots.get_offsets()) == len(resnet.layers)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert "ridge at 139 FLOP/byte" in texts(ax)
    assert "900 GB/s" in texts(ax)
    assert "peak 125 TFLOP/s" in texts(ax)
    areas = dots.get_sizes()
    shares = [dot.share for dot in cost_rows.roofline_of(
        resnet, "V100", cost_named(resnet, "V100")
    ).dots]  # fmt: skip
    assert list(np.argsort(areas)) == list(np.argsort(shares))
    labels = [text for text in ax.texts if text.get_text().endswith("%")]
    assert 1 <= len(labels) <= 5
    heights = sorted(label.get_position()[1] for label in labels)
    assert all(np.diff(heights) > 0.08)
    assert heights[0] > 0
    assert any("Block_0/ConvNormRelu_0/Conv_0 ×2" in label.get_text() for label in labels)


def test_nothing_to_draw_is_drawn_as_nothing(tmp_path):
    graph = reg.trace_channels(lambda v, x: x * v["a"], {"a": jnp.ones((1, 5))}, jnp.ones((2, 5)))
    cost_plots.plot_costs(graph, named(graph, "flops", "V100"), tmp_path / "a.png", "net")
    assert (tmp_path / "a.png").stat().st_size > 3000


@pytest.mark.parametrize("name", ["resnet", "chain"])
@pytest.mark.parametrize(
    "costs", [COSTS, ("H100",), ("0.5*flops + 0.5*edge_tpu", "0.2*size + 0.8*energy", "size")]
)
def test_no_text_is_on_another(request, name, costs):
    graph = request.getfixturevalue(name)
    figure = cost_plots.draw_costs(graph, named(graph, *costs), "net")
    canvas = agg.FigureCanvasAgg(figure)
    with plots.mpl.rc_context(plots.STYLE):
        canvas.draw()
    shown = [*figure.texts]
    for ax in figure.axes:
        ticks = {*ax.get_xticklabels(which="both"), *ax.get_yticklabels(which="both")}
        shown += [text for text in ax.findobj(Text) if text not in ticks]
        for k, axis in enumerate((ax.xaxis, ax.yaxis)):
            low, high = sorted(axis.get_view_interval())
            labels = axis.get_ticklabels(which="both")
            shown += [text for text in labels if low <= text.get_position()[k] <= high]
    shown = [text for text in shown if text.get_text() and text.get_visible()]
    assert len(shown) > 30
    boxes = [Text.get_window_extent(text) for text in shown]  # without leader lines
    for k, box in enumerate(boxes):
        assert box.x0 >= 0, shown[k]
        assert box.x1 <= figure.bbox.x1, shown[k]
        for other, text in zip(boxes[:k], shown, strict=False):
            assert not box.overlaps(other), (shown[k], text)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert all(titles)


def test_bad_calls(resnet, tmp_path, monkeypatch):
    flops = named(resnet, "flops")
    with pytest.raises(ValueError, match=r"'.jpg' is none of .png, .svg, .pdf"):
        cost_plots.plot_costs(resnet, flops, tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"there is no directory '.*nowhere'"):
        cost_plots.plot_costs(resnet, flops, tmp_path / "nowhere" / "a.png")
    with pytest.raises(ValueError, match="plot_costs needs at least one cost; got none"):
        cost_plots.plot_costs(resnet, {}, tmp_path / "a.png")
    monkeypatch.setattr(plots, "_missing", ModuleNotFoundError("No module named 'matplotlib'"))
    with pytest.raises(MissingExtraError, match="a plot needs packages that are not installed"):
        cost_plots.plot_costs(resnet, flops, tmp_path / "a.png")


class Dollars(nn.Module):
    """A name that would be a broken formula."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="a$\\frac$")(x)


def test_names_are_no_formulas(tmp_path):
    graph = trace(Dollars(), 1, 5)
    cost_plots.plot_costs(graph, named(graph, "flops", "V100"), tmp_path / "a.svg", "$\\frac$")
    figure = cost_plots.draw_costs(graph, named(graph, "flops"), "$\\frac$")
    assert rows_of(figure) == ["a\\$\\frac\\$"]
