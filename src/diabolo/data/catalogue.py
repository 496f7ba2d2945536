"""Data sets by name: where they lie, where they come from, and under what licence."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from diabolo.data.dataset import Dataset
from diabolo.data.files import opened, parsing
from diabolo.data.idx import read_idx_parts
from diabolo.errors import DataFileError, DownloadError, MissingExtraError
from diabolo.names import check_name

_OLIVETTI_SHAPE = (4096, 400)


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set, at its public origin.

    Parameters
    ----------
    name : str
        What the file is called, there and here.
    url : str
        Where it is fetched.
    sha256 : str, optional
        What the fetched bytes must hash to, in 64 hexadecimal digits. None where the origin's bytes are
        not known to us: then the content is checked instead.
    """

    name: str
    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """One data set of the catalogue.

    Parameters
    ----------
    name : str
        What ``load`` knows it by.
    about : str
        One sentence: what the samples are.
    licence : str
        One sentence: what its authors allow.
    files : tuple of RemoteFile
        Empty when the data come with a library.
    read : callable
        Makes the data set from the paths of the files, in their order.
    any_folder : bool
        Whether a home's other folders are searched too; only for file names that no other set uses.
    """

    name: str
    about: str
    licence: str
    files: tuple[RemoteFile, ...]
    read: Callable[[list[Path]], Dataset]
    any_folder: bool = False


def _read_digits(paths: list[Path]) -> Dataset:
    """Return the digits that come with scikit-learn, 8 x 8 pixels in 0..16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Dataset(X=bunch.images, y=bunch.target, name="digits")


def _read_mnist_like(name: str) -> Callable[[list[Path]], Dataset]:
    """Return the reader of four files in idx format."""

    def read(paths: list[Path]) -> Dataset:
        keys = ("train-images", "train-labels", "t10k-images", "t10k-labels")
        return replace(read_idx_parts(dict(zip(keys, paths, strict=True)), paths[0].parent), name=name)

    return read


def _read_olivetti(paths: list[Path]) -> Dataset:
    """Return the 400 faces, ten of each of 40 people in their order."""
    from scipy.io import loadmat

    (path,) = paths
    with opened(path) as stream, parsing(path, "a MATLAB file of version 5"):
        variables = loadmat(cast(Any, stream))  # any readable does; the stubs ask for a path
    faces = variables.get("faces")
    if not isinstance(faces, np.ndarray) or faces.shape != _OLIVETTI_SHAPE or faces.dtype.kind not in "uif":
        got = f"the shape {faces.shape}" if isinstance(faces, np.ndarray) else "no such variable"
        raise DataFileError(
            f"{path} must hold the variable faces of shape {_OLIVETTI_SHAPE}; got {got}. "
            "Delete it, so that it is fetched again."
        )
    # One picture in each column, and its pixels column by column, as MATLAB stores them.
    pictures = faces.T.reshape(400, 64, 64).transpose(0, 2, 1)
    if faces.dtype.kind == "f" and np.array_equal(pictures, np.clip(np.rint(pictures), 0, 255)):
        pictures = pictures.astype(np.uint8)
    return Dataset(X=np.ascontiguousarray(pictures), y=np.arange(400) // 10, name="olivetti")


def _idx_files(base: str, hashes: tuple[str, str, str, str]) -> tuple[RemoteFile, ...]:
    """Return MNIST's four files at ``base``."""
    names = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )
    return tuple(RemoteFile(name, base + name, sha256) for name, sha256 in zip(names, hashes, strict=True))


_ENTRIES = (
    Entry(
        name="digits",
        about="1797 handwritten digits of 8 x 8 pixels in 0..16, ten classes; comes with scikit-learn.",
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits, test part).",
        files=(),
        read=_read_digits,
    ),
    Entry(
        name="mnist",
        about="70000 handwritten digits of 28 x 28 pixels in 0..255, ten classes, 10000 of them for testing.",
        licence="None stated by the authors, often given as CC BY-SA 3.0; for research.",
        files=_idx_files(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        read=_read_mnist_like("mnist"),
    ),
    Entry(
        name="fashion-mnist",
        about="70000 clothes of 28 x 28 pixels in 0..255, ten classes, 10000 of them for testing.",
        licence="MIT.",
        files=_idx_files(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        read=_read_mnist_like("fashion-mnist"),
    ),
    Entry(
        name="olivetti",
        about="400 faces of 64 x 64 pixels in 0..255, ten of each of 40 people.",
        licence="Free for research; credit AT&T Laboratories Cambridge.",
        # No sha256: the copy that we could hash is a re-save of 2013, with the same pictures in other
        # bytes than the origin's. The content is checked instead, by name and shape of its variable.
        files=(RemoteFile("olivettifaces.mat", "https://cs.nyu.edu/~roweis/data/olivettifaces.mat"),),
        read=_read_olivetti,
        any_folder=True,
    ),
)

CATALOGUE = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def known_names() -> list[str]:
    """Return the names that ``load`` knows, sorted."""
    return sorted(CATALOGUE)


def data_homes(data_home: str | Path | None = None) -> list[Path]:
    """Return the folders in which data sets are looked for, in order.

    Parameters
    ----------
    data_home : path, optional
        Comes first; then the environment's DIABOLO_DATA, then the user's cache (where pooch, which knows
        the platform's place for it, is installed).
    """
    homes = [data_home, os.environ.get("DIABOLO_DATA")]
    try:
        import pooch
    except ImportError:
        pass
    else:
        homes.append(pooch.os_cache("diabolo"))
    return [Path(home).expanduser() for home in homes if home]


def load_named(name: str, data_home: str | Path | None = None) -> Dataset:
    """Return a data set of the catalogue, downloaded at first use.

    Parameters
    ----------
    name : str
        One of ``known_names()``.
    data_home : path, optional
        Searched first, and where a download goes; see ``data_homes``. Files found there are used as they
        are; only downloads are checked by their sha256.

    Raises
    ------
    InvalidParameterError
        When the name is unknown.
    DataFileError
        When a file in a data home cannot be read.
    DownloadError
        When a file could not be fetched, or other bytes came than were asked for.
    MissingExtraError
        When a file has to be downloaded and pooch is not installed.
    """
    entry = CATALOGUE[check_name("name", name, CATALOGUE)]
    homes = data_homes(data_home)
    paths = [_find(entry, file, homes) or _download(entry, file, homes) for file in entry.files]
    return entry.read(paths)


def _find(entry: Entry, file: RemoteFile, homes: list[Path]) -> Path | None:
    """Return where a file lies in the first home that has it."""
    for home in homes:
        candidates = [home / entry.name / file.name]
        try:
            if entry.any_folder:
                candidates += [home / file.name, *sorted(home.glob(f"*/{file.name}"))]
            for path in candidates:
                if path.is_file():
                    return path
        except OSError:
            continue  # a home that may not be listed has nothing for us
    return None


def _download(entry: Entry, file: RemoteFile, homes: list[Path]) -> Path:
    """Fetch a file into the first home and return its path there."""
    try:
        import pooch
    except ImportError as error:
        place = homes[0] / entry.name if homes else f"<data_home>/{entry.name}"
        raise MissingExtraError(
            f"Downloading {entry.name} ({file.url}, or put {file.name} into {place} by hand)",
            "pooch",
            "download",
        ) from error
    folder = homes[0] / entry.name
    known_hash = None if file.sha256 is None else f"sha256:{file.sha256}"
    try:
        fetched = pooch.retrieve(
            file.url, known_hash=known_hash, fname=file.name, path=folder, progressbar=False
        )
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
        said = str(error).strip().split("\n")[0]
        raise DownloadError(
            f"{file.url} must be reachable and give the expected file; got: {said}. "
            f"Try again later, or put {file.name} into {folder} by hand."
        ) from error
    path = Path(fetched)
    if file.sha256 is None:
        try:
            entry.read([path])
        except DataFileError as error:
            path.unlink(missing_ok=True)  # otherwise the next call would find and trust it
            raise DownloadError(
                f"{file.url} must give the data set {entry.name}; got another file. "
                f"Try again later, or put {file.name} into {folder} by hand."
            ) from error
    return path
