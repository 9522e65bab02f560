"""Records that contradict themselves are refused."""

import pytest
from every_axis import refused


def test_width_must_be_the_number_of_parents(data):
    data["groups"]["left"]["width"] = 4
    refused(data, "group 'left' says width 4, but lists 3 parents")


@pytest.mark.parametrize("parent", [5, 999])
def test_parents_must_be_channels_of_the_seed(data, parent):
    data["groups"]["left"]["parents"][1] = parent
    refused(data, r"group 'left' has a parent outside 0\.\.4")


def test_parents_below_fresh_are_refused(data):
    data["groups"]["left"]["parents"][1] = -2
    refused(data, "malformed architecture at groups/left/parents/1: -2 is less than")


def test_groups_in_axes_must_exist(data):
    data["variables"]["params/norm/scale"]["axes"] = ["lefty"]
    refused(data, "'params/norm/scale' names group 'lefty'; did you mean 'left'")
    data["variables"]["params/norm/scale"]["axes"] = [12]
    data["layers"][0]["out_axis"] = "xyz"
    refused(data, "'left' names group 'xyz'; known are 'left', 'right', 'hidden'")


def test_shapes_must_agree_with_axes(data):
    data["variables"]["params/norm/scale"]["shape"] = [13]
    refused(data, r"'params/norm/scale' has shape \[13\], but its axes measure \[12\]")


def test_roles_must_be_axes(data):
    data["variables"]["params/norm/scale"]["produces"] = [1]
    refused(data, "'params/norm/scale' has 1 axes, but produces or consumes along axis 1")


def test_dtypes_must_exist(data):
    data["variables"]["params/norm/scale"]["dtype"] = "float31"
    refused(data, "'params/norm/scale' has dtype 'float31', which does not exist")


def test_layers_must_say_the_width_of_their_axes(data):
    data["layers"][0]["out"]["width"] = 4
    refused(data, "layer 'left' says out width 4 of 5, but its axis measures 3 of 5")


def test_axes_nested_without_end_are_refused(data):
    axis = 12
    for _ in range(5000):
        axis = {"sum": [axis]}
    data["variables"]["params/norm/scale"]["axes"] = [axis]
    refused(data, "nested too deeply")


def test_numbers_must_be_finite(data):
    data["layers"][0]["flop_coefficient"] = float("nan")
    refused(data, "not finite")
