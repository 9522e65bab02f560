"""The picture of a channel graph: well-formed, one box per layer, one colour per group."""

import base64
import hashlib
import itertools
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import regularizers as reg
from experiments.networks import build
from experiments.pictures import flow as flow_of_graph
from experiments.pictures import layout
from experiments.pictures import svg as svg_writer
from regularizers.primitives import axes as ax

SVG = "{http://www.w3.org/2000/svg}"


class Decoder(nn.Module):
    """An embedding, attention, a gate; the embedding is the head, too."""

    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(13, 10, name="embed")
        x = embed(ids)
        x += nn.MultiHeadDotProductAttention(num_heads=5, name="attention")(nn.LayerNorm()(x))
        x *= nn.sigmoid(nn.Dense(10, name="gate")(x))
        return embed.attend(x)


def trace(model, *inputs):
    variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    return reg.trace_channels(model.apply, variables, *inputs)


@pytest.fixture(scope="module")
def resnet():
    model = build("resnet8", input_shape=(8, 8, 3), num_classes=5)
    return trace(model, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))


@pytest.fixture(scope="module")
def inception():
    model = build("inception", input_shape=(8, 8, 3), num_classes=5, width=0.5)
    return trace(model, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))


@pytest.fixture(scope="module")
def decoder():
    return trace(Decoder(), jax.ShapeDtypeStruct((1, 7), jnp.int32))


def drawn(graph, title="net"):
    return ElementTree.fromstring(svg_writer.to_svg(graph, title).encode())


def boxes(svg, kind="layer"):
    return [g for g in svg.iter(f"{SVG}g") if kind in g.get("class", "").split()]


def marked(svg, mark):
    """The colours of everything that shows a group."""
    return {
        element.get("stroke" if "flow" in classes else "fill")
        for element in svg.iter()
        if (classes := element.get("class", "").split())[:1] in (["flow"], ["edge"])
        and mark in classes
    }


@pytest.mark.parametrize("name", ["resnet", "inception"])
def test_one_box_per_layer_in_order_and_no_two_overlap(name, request):
    graph = request.getfixturevalue(name)
    svg = drawn(graph)
    assert [box.get("data-layer") for box in boxes(svg)] == list(graph.layers)
    corners = [
        (float(rect.get("x")), float(rect.get("y")))
        for rect in svg.iter(f"{SVG}rect")
        if rect.get("class") == "box"
    ]
    width, height = layout.BOX_WIDTH, layout.BOX_HEIGHT
    for i, (x, y) in enumerate(corners):
        assert 0 <= x <= float(svg.get("width")) - width
        assert 0 <= y <= float(svg.get("height")) - height
        for other_x, other_y in corners[:i]:
            assert abs(x - other_x) >= width or abs(y - other_y) >= height


@pytest.mark.parametrize("name", ["resnet", "inception", "decoder"])
def test_a_group_has_one_colour_wherever_it_shows(name, request):
    graph = request.getfixturevalue(name)
    svg, colors = drawn(graph), svg_writer.color_of(graph)
    for i, group in enumerate(graph.groups):
        assert marked(svg, f"g{i}") == {colors[group]}
    assert marked(svg, "fixed") <= {"url(#fixed)", svg_writer._LINE}


def test_colours_of_neighbours_differ_and_come_round_again(inception):
    colors = list(svg_writer.color_of(inception).values())
    assert len(colors) == len(inception.groups) > len(svg_writer.PALETTE)
    assert all(a != b for a, b in itertools.pairwise(colors))


def named_edges(graph):
    flow = flow_of_graph.flow_of(graph)
    return {
        (flow.nodes[a].name, flow.nodes[b].name): groups for (a, b), groups in flow.edges.items()
    }


def test_a_skip_is_a_join_of_the_stream_and_the_branch(resnet):
    edges = named_edges(resnet)
    stem, branch = "ConvNormRelu_0/Conv_0", "Block_0/ConvNormRelu_0/Conv_0"
    assert edges[stem, branch] == (stem,)
    assert edges[branch, "Block_0/Conv_0"] == (branch,)
    assert edges["Block_0/Conv_0", "+"] == (stem,)
    assert edges[stem, "+"] == (stem,)
    assert edges["+", "Block_1/Conv_1"] == (stem,)
    assert edges["input", stem] == ()
    assert (stem, "Block_1/Conv_1") not in edges


def test_a_layer_that_consumes_a_group_is_fed_by_one_that_produces_it(inception):
    flow = flow_of_graph.flow_of(inception)
    for b, node in enumerate(flow.nodes):
        fed = {group for (_, to), groups in flow.edges.items() if to == b for group in groups}
        assert fed == {group for group, _ in node.into if group}


def test_towers_meet_in_a_concatenation(inception):
    flow = flow_of_graph.flow_of(inception)
    joins = [node for node in flow.nodes if node.kind == "join"]
    assert [(join.name, len(join.out)) for join in joins] == [("‖", 4)] * 3
    assert len(flow.nodes[-1].into) == 4


def test_an_embedding_a_gate_and_attention(decoder):
    flow = flow_of_graph.flow_of(decoder)
    edges = named_edges(decoder)
    assert [node.name for node in flow.nodes if node.kind == "table"] == ["embed"]
    assert edges["input", "embed"] == ()
    assert edges["embed", "attention/query"] == ("embed",)
    assert edges["gate", "×"] == edges["+", "×"] == ("embed",)
    products = [node for node in flow.nodes if node.text[:1] == ("product",)]
    assert [node.text[1] for node in products] == ["over 2", "over 7"]
    heads, width = "attention/query[1]", "attention/query[2]"
    assert edges["attention/key", products[0].name] == (heads, width)
    svg = drawn(decoder)
    assert len(boxes(svg)) == len(decoder.operations)
    assert len(boxes(svg, "table")) == 1


def test_the_body_of_a_scan_is_drawn():
    def fn(variables, x):
        def body(carry, row):
            return jnp.tanh(row @ variables["in"] + carry @ variables["hidden"]), None

        return jax.lax.scan(body, jnp.zeros(7), x)[0] @ variables["out"]

    shapes = {"in": (5, 7), "hidden": (7, 7), "out": (7, 3)}
    variables = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in shapes.items()}
    graph = reg.trace_channels(fn, variables, jax.ShapeDtypeStruct((4, 5), jnp.float32))
    assert [box.get("data-layer") for box in boxes(drawn(graph))] == list(graph.layers)
    assert ("+", "out") in named_edges(graph)


def test_names_are_escaped_and_long_ones_keep_their_ends():
    name = "<script>alert('&')</script> \"quoted\" " + "x" * 60 + "END"
    variables = {name: {"w": jnp.ones((5, 7))}, "last": {"w": jnp.ones((7, 3))}}

    def fn(variables, x):
        return x @ variables[name]["w"] @ variables["last"]["w"]

    graph = reg.trace_channels(fn, variables, jnp.ones((2, 5)))
    svg = drawn(graph, title=name)
    assert boxes(svg)[0].get("data-layer") == graph.layers[0]
    texts = [text.text for text in boxes(svg)[0].iter(f"{SVG}text")]
    assert any(text.startswith("…") and text.endswith("END") for text in texts)
    assert "<script>alert" not in svg_writer.to_html(graph, name)


def test_a_row_is_placed_nearest_to_its_wishes_without_overlaps():
    gap = layout._COLUMN_GAP
    x = [0.0] * 3
    layout._place([0, 1, 2], [0.0, 0.0, 500.0], [100.0, 100.0, 100.0], x)
    assert x == [-(100 + gap) / 2, (100 + gap) / 2, 500.0]


def test_a_page_stands_alone(resnet):
    text = svg_writer.to_html(resnet, "net")
    HTMLParser().feed(text)
    assert not re.search(r'(src|href)="|@import|url\((?!#)', text)
    assert text.count("<li class=") == len(resnet.groups)
    ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + len("</svg>")])


def test_the_ending_chooses_the_format(resnet, tmp_path):
    svg_writer.save(resnet, tmp_path / "a.svg", "net")
    svg_writer.save(resnet, tmp_path / "a.HTML", "net")
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    assert (tmp_path / "a.HTML").read_text().startswith("<!DOCTYPE html>")
    for name, found in (("a.gif", "'.gif'"), ("a", "no ending")):
        with pytest.raises(ValueError, match=f"{found} is none of .svg, .html"):
            svg_writer.save(resnet, tmp_path / name, "net")


def test_a_png_has_the_pixels_of_the_svg_twice(resnet, tmp_path):
    pytest.importorskip("resvg_py")  # the extra `plots` brings it
    svg_writer.save(resnet, tmp_path / "a.png", "net")
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    size = [int.from_bytes(data[k : k + 4], "big") for k in (16, 20)]
    assert size == [2 * int(drawn(resnet).get(name)) for name in ("width", "height")]


def test_a_layer_tells_its_costs_and_what_fixes_it(resnet):
    last = boxes(drawn(resnet))[-1].find(f"{SVG}title").text
    assert "640 FLOP (0.0%)" in last
    assert "325 parameters (0.4%)" in last
    assert "fixed: axis 1 of params/Dense_0/kernel, axis of an output" in last


def test_in_the_dark_light_and_dark_change_places_and_names_break_between_words(resnet):
    page = svg_writer.to_html(resnet, "net")
    assert "prefers-color-scheme: dark" in drawn(resnet).find(f"{SVG}style").text
    assert "ConvNormRelu_<wbr>0/<wbr>Conv_<wbr>0" in page
    assert "anywhere" not in page


def test_a_box_tells_kind_kernel_and_widths(resnet):
    texts = [text.text for text in boxes(drawn(resnet))[0].iter(f"{SVG}text")]
    assert texts == ["3", "ConvNormRelu_0/Conv_0 16", "ConvNormRelu_0/Conv_0", "conv 3×3   3 → 16"]


def test_equations_are_counted_inside_calls():
    inner = jax.jit(lambda x: jnp.sin(x) * 2)
    closed = jax.make_jaxpr(lambda x: inner(x) + inner(x))(1.0)
    assert flow_of_graph.count_equations(closed.jaxpr) == 5


def test_many_segments_are_cut_short_and_counted():
    n = svg_writer._MOST_SEGMENTS + 2
    variables = {f"part_{i}": {"w": jnp.ones((3, i + 2))} for i in range(n)}
    variables["last"] = {"w": jnp.ones((sum(i + 2 for i in range(n)), 3))}

    def fn(variables, x):
        parts = [x @ variables[f"part_{i}"]["w"] for i in range(n)]
        return jnp.concatenate(parts, -1) @ variables["last"]["w"]

    graph = reg.trace_channels(fn, variables, jnp.ones((1, 3)))
    last = boxes(drawn(graph))[-1]
    assert last.get("data-layer") == "last"
    assert len(list(ax.groups_of(graph.variables["last/w"].axes[0]))) == n
    assert "+2" in [text.text for text in last.iter(f"{SVG}text")]


def test_the_page_runs_its_own_script_only(tmp_path):
    def fn(variables, x):
        return x @ variables["a\x1b<b>"] @ variables["z"]

    variables = {"a\x1b<b>": jnp.ones((3, 5)), "z": jnp.ones((5, 2))}
    graph = reg.trace_channels(fn, variables, jnp.ones((1, 3)))
    svg_writer.save(graph, tmp_path / "a.html", title="t\x1b<script>")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert "\x1b" not in page
    svg_writer.save(graph, tmp_path / "a.svg", title="t\x1b<script>")
    ElementTree.parse(tmp_path / "a.svg")
