"""The table of devices."""

import dataclasses
import math

import pytest

import regularizers as reg

# MorphNet's own table: peak GFLOP/s, GB/s.
MORPHNET = {
    "K80": (8740, 480),
    "P4": (5500, 192),
    "T4": (8100, 300),
    "P100": (9300, 732),
    "V100": (125000, 900),
    "TPUv2": (22500, 300),
}
ASKED_FOR = {"A100", "H100", "H200", "TPUv3", "TPUv4", "TPUv5e", "Cortex-A72"}


def device(**changes):
    figures = {"peak_flops_per_s": {"float32": 1e12}, "bytes_per_s": 1e11}
    return reg.Device(name="mine", source="made up", **figures | changes)


@pytest.mark.parametrize("name", MORPHNET)
def test_figures_of_morphnet(name):
    gflops, gbytes = MORPHNET[name]
    found = reg.DEVICES[name]
    assert found.peak("float32") == pytest.approx(gflops * 1e9, rel=1e-15)
    assert found.bytes_per_s == gbytes * 1e9


def test_all_devices_have_sources_and_positive_figures():
    assert set(reg.DEVICES) >= ASKED_FOR | set(MORPHNET)
    for name, found in reg.DEVICES.items():
        assert found.name == name
        assert len(found.source) > 10
        assert found.peak_flops_per_s
        for figure in (found.bytes_per_s, *found.peak_flops_per_s.values()):
            assert 0 < figure < math.inf


def test_narrow_types_are_at_least_as_fast():
    """Whatever a device can do in 32 bits it can do in fewer."""
    for found in reg.DEVICES.values():
        peaks = found.peak_flops_per_s
        for wide, narrow in (("float32", "float16"), ("float16", "int8"), ("bfloat16", "int8")):
            if wide in peaks and narrow in peaks:
                assert peaks[narrow] >= peaks[wide], (found.name, wide, narrow)


@pytest.mark.parametrize("figure", [0.0, -1.0, math.inf, math.nan])
def test_unphysical_figures_are_refused(figure):
    with pytest.raises(ValueError, match=r"device 'mine': bytes_per_s must be a positive number"):
        device(bytes_per_s=figure)
    with pytest.raises(
        ValueError, match=r"'mine': peak_flops_per_s\['int8'\] must be a positive number, found"
    ):
        device(peak_flops_per_s={"float32": 1e12, "int8": figure})


def test_a_device_without_any_peak_is_refused():
    with pytest.raises(ValueError, match="device 'mine': peak_flops_per_s names no type"):
        device(peak_flops_per_s={})


def test_a_device_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        device().bytes_per_s = 1.0


def test_unknown_types_list_the_known():
    with pytest.raises(ValueError, match=r"'TPUv3' has no peak for 'int4'.*bfloat16"):
        reg.DEVICES["TPUv3"].peak("int4")
