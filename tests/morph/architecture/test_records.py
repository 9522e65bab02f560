"""An architecture as JSON, and back."""

from every_axis import MODEL, X, assert_same

import morph
from morph import Architecture


def test_save_and_load_is_the_identity(graph, shrunk, tmp_path):
    full = shrunk.with_parents(
        {"left": (0, 0, -1)}, width_multiplier=1.25, report={"budget": 0.5, "by": ["hand", None]}
    )
    for arch in (full, shrunk, Architecture.of_seed(graph)):
        arch.save(tmp_path / "architecture.json")
        assert Architecture.load(tmp_path / "architecture.json") == arch
        assert Architecture.load(str(tmp_path / "architecture.json")).to_json() == arch.to_json()
    assert [p.name for p in tmp_path.iterdir()] == ["architecture.json"]


def test_a_loaded_architecture_rebuilds_the_network(shrunk, variables, tmp_path):
    shrunk.save(tmp_path / "a.json")
    loaded = Architecture.load(tmp_path / "a.json")
    assert_same(loaded.take(variables), shrunk.take(variables))
    assert_same(
        morph.compact(MODEL.apply, loaded)(loaded.take(variables), X),
        morph.compact(MODEL.apply, shrunk)(shrunk.take(variables), X),
    )
