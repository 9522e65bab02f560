"""Drawings say what the cores are: contracted, their nodes make the kernel's shape."""

import re

import numpy as np
import pytest
import tensornetwork as tn

from morph.kernels.factorized import STACK
from morph.kernels.formats import FORMATS
from morph.kernels.planned import PlannedKernel
from morph.tensorize.diagram import nodes_of, to_dot

SHAPE, ROLES = (3, 2, 6, 5), "ssio"


def planned(kind, rank=2, stack=0):
    format, sizes = FORMATS[kind](SHAPE, ROLES)
    sizes = {label: min(n, rank) if label in format.bonds else n for label, n in sizes.items()}
    if stack:
        format, sizes = format.stacked(0), {**sizes, STACK: stack}
    roles = "b" * bool(stack) + ROLES
    return PlannedKernel(path=kind, roles=roles, format=format, sizes=sizes, error=0.1)


@pytest.mark.parametrize("stack", [0, 7])
@pytest.mark.parametrize("kind", FORMATS)
def test_nodes_are_the_network(kind, stack):
    kernel = planned(kind, stack=stack)
    nodes = nodes_of(kernel)
    tn.check_correct(nodes)
    tn.check_connected(nodes)
    open_ = {edge.name for node in nodes for edge in node.edges if edge.is_dangling()}
    labels = [label for axis in kernel.format.axes for label in axis]
    assert open_ == {f"{label} {kernel.sizes[label]}" for label in labels}
    copies = [node.name for node in nodes if isinstance(node, tn.CopyNode)]
    assert copies == ["b0"] * bool(stack) + ["r"] * (kind == "cp") or copies == ["r", "b0"]
    cores = [node for node in nodes if not isinstance(node, tn.CopyNode)]
    assert [node.name for node in cores] == list(kernel.format.names)
    assert tuple(node.shape for node in cores) == kernel.format.core_shapes(kernel.sizes)


def test_contracted_nodes_are_the_kernel():
    kernel, rng = planned("cp"), np.random.default_rng(0)
    nodes = nodes_of(kernel)
    *cores, copy = nodes
    for core in cores:
        core.tensor = rng.standard_normal(core.shape)
    ends = [core.edges[0] for core in cores]
    made = np.einsum("ar,br,cr,dr->abcd", *(core.tensor for core in cores))
    found = tn.contractors.greedy([*cores, copy], output_edge_order=ends).tensor
    np.testing.assert_allclose(found, made, rtol=1e-10)


def test_dot_has_every_core_and_edge_of_every_kernel():
    kernels = {'params/a"\\b/kernel': planned("tt"), "params/c/kernel": planned("cp", stack=3)}
    text = to_dot(kernels)
    assert text == to_dot(kernels)
    assert text.count("{") == text.count("}") == 3
    names = set(re.findall(r"^\t\t(n\d+) \[", text, re.MULTILINE))
    train = len(planned("tt").format.names)
    assert names == {f"n{k}" for k in range(train + 4 + 2)}
    edges = re.findall(r'^\t\t"?(\w+)"? -- (n\d+) \[label="(\w+ \d+)"\]$', text, re.MULTILINE)
    invisible = set(re.findall(r'"(n\d+_\d+)" \[label="" style=invis\]', text))
    assert {end for edge in edges for end in edge[:2]} <= names | invisible
    said = [label for *_, label in edges]
    assert {"r1 2", "r2 2", "i0 3", "s0 3", "r 2", "b0 3"} <= set(said)
    assert said.count("r 2") == 4  # all meet in the copy node
    assert said.count("b0 3") == 4 + 1
    assert r'label="params/a\"\\b/kernel: tt[3, 2, 6, 5]"' in text
