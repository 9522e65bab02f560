"""The files of data sets: idx, gzipped or not, pictures and labels in JSON, each checked."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import numpy as np

from regularizers.errors import MorphError

try:
    from PIL import Image
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"experiments.dataset_files reads pictures with pillow ({error}): "
        "pip install 'morph-jax[data]'"
    ) from error


class DatasetError(MorphError, ValueError):
    """An unknown data set, or files that are not what they should be."""


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Reads one idx file of unsigned bytes, gzipped or not, that must have this shape."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DatasetError(
                f"{path}: expected a whole gzip file, found {len(content)} bytes that do not "
                f"decompress ({error}). Install it again."
            ) from error
    # Header: two zero bytes, the element type (8 = uint8), the rank; then each size, big-endian.
    magic = bytes((0, 0, 8, len(shape)))
    if content[:4] != magic:
        raise DatasetError(
            f"{path}: expected idx magic number {magic.hex()} (uint8, {len(shape)} axes), "
            f"found {content[:4].hex() or 'an empty file'}."
        )
    start = 4 + 4 * len(shape)
    if len(content) < start:
        raise DatasetError(f"{path}: expected {start} bytes of header, found {len(content)} bytes.")
    found = tuple(int(size) for size in np.frombuffer(content, ">u4", len(shape), 4))
    if found != shape:
        raise DatasetError(f"{path}: expected shape {shape}, found {found}.")
    expected = int(np.prod(shape))
    if len(content) - start != expected:
        raise DatasetError(
            f"{path}: expected {expected} bytes after the header, found {len(content) - start}."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_rgb(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Reads an RGB picture of this (height, width) as uint8 [height, width, 3]."""
    height, width = shape
    try:
        with Image.open(path) as picture:
            if picture.mode != "RGB" or picture.size != (width, height):
                raise DatasetError(
                    f"{path}: expected an RGB picture, {width} wide and {height} high, found "
                    f"{picture.mode}, {picture.width} wide and {picture.height} high."
                )
            return np.asarray(picture)
    except (OSError, SyntaxError, zlib.error) as error:  # pillow's words for a broken PNG
        raise DatasetError(
            f"{path}: expected a whole PNG file, found {path.stat().st_size} bytes that do not "
            f"decode ({error}). Install it again."
        ) from error


def read_json_labels(path: Path, count: int, num_classes: int) -> np.ndarray:
    """Reads a JSON list of this many labels in [0, num_classes), as uint8."""
    try:
        labels = np.asarray(json.loads(path.read_bytes()))
    except ValueError as error:  # not UTF-8, not JSON, or a ragged list
        raise DatasetError(f"{path}: expected a JSON list of labels, found {error}.") from error
    return checked_labels(path, labels, count, num_classes)


def checked_labels(path: Path, labels: np.ndarray, count: int, num_classes: int) -> np.ndarray:
    """The labels as uint8, if there are this many, all in [0, num_classes)."""
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DatasetError(
            f"{path}: expected {count} integer labels, "
            f"found shape {labels.shape} of {labels.dtype}."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DatasetError(
            f"{path}: expected labels in 0..{num_classes - 1}, "
            f"found {labels.min()}..{labels.max()}."
        )
    return labels.astype(np.uint8)
