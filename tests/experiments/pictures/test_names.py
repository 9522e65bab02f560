"""Long names keep whole parts at their end."""

import pytest

from experiments.pictures.names import tail


@pytest.mark.parametrize(
    ("name", "most", "found"),
    [
        ("Conv_0", 6, "Conv_0"),
        ("a/Conv_0", 7, "…Conv_0"),
        ("Block_0/ConvNormRelu_0/Conv_0", 24, "…/ConvNormRelu_0/Conv_0"),
        ("a/Conv_10/", 5, "…_10/"),
        ("Conv_10", 1, "…0"),
    ],
)
def test_parts_stay_whole_where_there_is_room(name, most, found):
    assert tail(name, most) == found
