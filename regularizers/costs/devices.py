"""What devices can do at most: peak arithmetic by type, and memory bandwidth.

Vendors' figures, for dense operands, of one chip (TPU v2: one core). They are ceilings: use
`reg.calibrate()` for what a device really does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from regularizers.errors import InputError
from regularizers.messages import near

_TPU = "Google Cloud TPU documentation, per chip"
_MORPHNET = "MorphNet, morph_net/framework/latency tables (Gordon et al. 2018), as it counts"


@dataclass(frozen=True, kw_only=True)
class Device:
    """Peak figures of one device.

    Attributes:
        name: what it is called.
        peak_flops_per_s: by type of the operands, 2 per multiply-add.
        bytes_per_s: memory bandwidth.
        source: where the figures are from.

    Raises:
        ValueError: if a figure is not a positive finite number, or there is none.
    """

    name: str
    peak_flops_per_s: Mapping[str, float]
    bytes_per_s: float
    source: str

    def __post_init__(self) -> None:
        figures = {f"peak_flops_per_s[{k!r}]": v for k, v in self.peak_flops_per_s.items()}
        for what, figure in {**figures, "bytes_per_s": self.bytes_per_s}.items():
            if not (figure > 0.0 and math.isfinite(figure)):
                raise InputError(
                    f"device {self.name!r}: {what} must be a positive number, found {figure!r}"
                )
        if not figures:
            raise InputError(f"device {self.name!r}: peak_flops_per_s names no type")

    @property
    def default_dtype(self) -> str:
        """float32, or its first type where it has no figure for that."""
        peaks = self.peak_flops_per_s
        return "float32" if "float32" in peaks else next(iter(peaks))

    def peak(self, dtype: str) -> float:
        """FLOP/s for operands of a type.

        Raises:
            ValueError: if the table has no figure for it; the message lists those it has.
        """
        peaks = self.peak_flops_per_s
        if dtype not in peaks:
            raise InputError(f"device {self.name!r} has no peak for {dtype!r}{near(dtype, peaks)}")
        return peaks[dtype]


def _device(name: str, gbytes_per_s: float, source: str, **tflops: float) -> Device:
    peaks = {dtype: figure * 1e12 for dtype, figure in tflops.items()}
    return Device(name=name, peak_flops_per_s=peaks, bytes_per_s=gbytes_per_s * 1e9, source=source)


DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        _device("K80", 480, _MORPHNET, float32=8.74),
        _device("P4", 192, _MORPHNET, float32=5.5),
        _device("T4", 300, _MORPHNET, float32=8.1),
        _device("P100", 732, _MORPHNET, float32=9.3),
        # MorphNet's one figure for it is the tensor cores' for float16.
        _device("V100", 900, _MORPHNET, float32=125.0, float16=125.0),
        # Likewise: bfloat16 products, counted for every type.
        _device("TPUv2", 300, _MORPHNET, float32=22.5, bfloat16=22.5),
        _device(
            "A100",
            1555,
            "NVIDIA A100 datasheet, SXM4 40 GB; dense, float32 without TF32",
            float32=19.5,
            float16=312.0,
            bfloat16=312.0,
            int8=624.0,
        ),
        _device(
            "H100",
            3350,
            "NVIDIA H100 datasheet, SXM5 80 GB; dense, float32 without TF32",
            float32=67.0,
            float16=989.5,
            bfloat16=989.5,
            int8=1979.0,
        ),
        _device(
            "H200",
            4800,
            "NVIDIA H200 datasheet, SXM; dense, float32 without TF32",
            float32=67.0,
            float16=989.5,
            bfloat16=989.5,
            int8=1979.0,
        ),
        _device("TPUv3", 900, _TPU, bfloat16=123.0),
        _device("TPUv4", 1228, _TPU, bfloat16=275.0, int8=275.0),
        _device("TPUv5e", 819, _TPU, bfloat16=197.0, int8=394.0),
        _device(
            "Cortex-A72",
            12.8,
            "Raspberry Pi 4: 4 cores x 1.5 GHz x 8 float32 (16 int8) FLOP per cycle of NEON, "
            "32 bit LPDDR4-3200",
            float32=0.048,
            int8=0.096,
        ),
        _device(
            "Cortex-A53",
            12.8,
            "Coral Dev Board (i.MX 8M): 4 cores x 1.5 GHz x 8 float32 (16 int8) FLOP per cycle of "
            "NEON, 32 bit LPDDR4-3200",
            float32=0.048,
            int8=0.096,
        ),
    )
}  # fmt: skip
