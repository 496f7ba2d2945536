"""Files that commands write: the format by the suffix, whole or not at all."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from diabolo.errors import DiaboloError, InvalidParameterError, MissingExtraError, ModelFileError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

TABLES = (".npy", ".csv", ".parquet")
PICTURES = (".png",)
_ROW_GROUP = 100_000  # rows: few enough that a reader can shuffle them well
FOLDER = ""
"""Stands among suffixes for a path without one: a folder."""


def check_place(
    path: Path,
    suffixes: Sequence[str] | None = None,
    option: str = "--output",
    read: Sequence[str | Path] = (),
) -> Path:
    """Return ``path`` if a file or folder can be written there, before any work is done for it.

    Parameters
    ----------
    path : Path
        Where a command is to write.
    suffixes : sequence of str, optional
        The formats that it can write; None allows any.
    option : str
        What the path is called in an error.
    read : sequence of str or Path
        What the command reads, the names of data sets among them: neither that nor a file in it is replaced.

    Raises
    ------
    InvalidParameterError
        When the suffix is not one of ``suffixes``, nothing can be written there, or the file is one of
        those that are read.
    """
    path = path.expanduser()
    check_name_of(path, option)
    is_folder = suffixes is not None and path.suffix.lower() == FOLDER and FOLDER in suffixes
    if suffixes == (FOLDER,) and not is_folder:
        raise InvalidParameterError(
            f"{option} must be a folder, whose name has no suffix; got {str(path)!r}. Give for example "
            f"{str(path.with_suffix(''))!r}."
        )
    if path.is_dir() and not is_folder:
        raise InvalidParameterError(
            f"{option} must name a file; got the folder {str(path)!r}. Add a file name to it."
        )
    if suffixes is not None and path.suffix.lower() not in suffixes:
        names = [suffix or "none (a folder)" for suffix in suffixes]
        raise InvalidParameterError(
            f"{option} must end in one of {', '.join(names)}; got {str(path)!r}. The suffix says the format."
        )
    if is_folder and path.exists() and (not path.is_dir() or any(path.iterdir())):
        other = "" if suffixes == (FOLDER,) else ", or have a suffix that says its format"
        raise InvalidParameterError(
            f"{option} must be a new or an empty folder{other}; got {str(path)!r}, which exists. Choose "
            "another name."
        )
    if path.exists():
        target = path.resolve()
        for place in (Path(one).expanduser().resolve() for one in read):
            if place == target or place in target.parents:
                raise InvalidParameterError(
                    f"{option} must be another file than those that are read; got {str(path)!r}. Choose "
                    "another name."
                )
    check_writable(path.parent, option)
    return path


def check_folder(folder: Path, option: str) -> None:
    """Raise unless files can be written into ``folder``, which need not exist yet."""
    check_name_of(folder, option)
    if folder.exists() and not folder.is_dir():
        raise InvalidParameterError(
            f"{option} must be a folder; got the file {str(folder)!r}. Choose another name."
        )
    check_writable(folder if folder.is_dir() else folder.parent, option)


def check_writable(folder: Path, option: str) -> None:
    """Raise unless a file can be made in ``folder``: said before an hour of work, not after it."""
    if not folder.is_dir():
        got, way_out = (
            (", which is a file", "Choose another place") if folder.exists() else ("", "Create it first")
        )
        raise InvalidParameterError(
            f"{option} must be in a folder that exists; got {str(folder)!r}{got}. {way_out}."
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidParameterError(
            f"{option} must be in a folder that you may write to; got {str(folder)!r} ({error.strerror}). "
            "Choose another folder."
        ) from error


def check_name_of(path: Path, option: str) -> None:
    """Raise where the system takes no such name, be there a file or not."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        shown = str(path) if len(str(path)) <= 60 else f"{str(path)[:30]}...{str(path)[-20:]}"
        raise InvalidParameterError(
            f"{option} must be a path that can be looked up; got {shown!r} ({error.strerror}). "
            "Choose another name or folder."
        ) from error


def check_model_place(path: Path) -> Path:
    """Return ``path`` if a model can be written there; a file that is no model is never overwritten.

    Raises
    ------
    ModelFileError
        When the file exists and is not a model of diabolo.
    """
    path = check_place(path)
    if path.exists():
        from diabolo import load

        try:
            load(path)
        except ModelFileError:
            raise ModelFileError(
                f"--output must be a new file or a model to replace; got {path}, which is neither. "
                "Choose another name."
            ) from None
    return path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let what the system says about writing name ``path``, where it names nothing or a file aside."""
    try:
        yield
    except DiaboloError:
        raise
    except OSError as error:
        said = error.strerror or str(error) or type(error).__name__
        raise OSError(error.errno or errno.EIO, said, str(path)) from error


@contextmanager
def aside(path: Path, folder: bool = False) -> Iterator[Path]:
    """Hand out a place beside ``path`` to write to; it takes the name ``path`` only once all is written.

    On any exception, Ctrl-C, SIGTERM and a full disk among them, what was written aside is removed.
    """
    from diabolo.interruption import stoppable

    with stoppable(), naming(path):
        # cut: a name of the length that the system allows leaves no room for what is added
        room = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:40]}-"))
        place = room / path.name
        try:
            if folder:
                place.mkdir()
            yield place
            if folder and path.is_dir():
                path.rmdir()  # empty: check_place saw to it
            place.replace(path)
        finally:
            shutil.rmtree(room, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with aside(path) as place:
        place.write_text(text, encoding="utf-8")


def write_rows(path: Path, rows: Array, names: Sequence[str] | None = None) -> None:
    """Write one row for each sample as .npy (any shape), .csv or .parquet (flattened, with column names).

    Parameters
    ----------
    path : Path
        Its suffix says the format.
    rows : ndarray of shape (n, ...)
        What to write.
    names : sequence of str, optional
        Of the columns; None calls them x0, x1, ...
    """
    flat = rows.reshape(len(rows), -1)
    suffix = path.suffix.lower()
    with aside(path) as place:
        if suffix == ".npy":
            with place.open("wb") as stream:
                write_npy(stream, [rows], len(rows))
        elif suffix == ".csv":
            with place.open("w", encoding="utf-8", newline="") as stream:
                write_csv(stream, flat, names)
        else:
            with parquet_writer(place, names) as write:
                write(flat)


def write_npy(stream: BinaryIO, parts: Iterable[Array], n: int) -> tuple[int, ...]:
    """Write the header for n rows, then these as they come, at least one part; return the shape of all.

    Where fewer came, the header is written once more. By the stream itself, because what ``numpy.save``
    raises on a full disk does not say why.
    """
    import numpy as np

    def head(part: Array, rows: int) -> None:
        about = {
            "descr": np.lib.format.dtype_to_descr(part.dtype),
            "fortran_order": False,
            "shape": (rows, *part.shape[1:]),
        }
        np.lib.format.write_array_header_1_0(stream, about)

    done, first = 0, None
    for part in parts:
        if first is None:
            first = part[:0].copy()
            head(first, n)
            start = stream.tell()
        stream.write(np.ascontiguousarray(part).data)
        done += len(part)
    assert first is not None
    if done != n:
        stream.seek(0)
        head(first, done)
        assert stream.tell() == start  # numpy leaves room for it
    return done, *first.shape[1:]


def _columns(names: Sequence[str] | None, width: int) -> list[str]:
    return list(names) if names is not None else [f"x{index}" for index in range(width)]


def write_csv(stream: TextIO, flat: Array, names: Sequence[str] | None) -> None:
    """Write rows (k, width) as lines, after one with the columns' names where the file is empty."""
    import numpy as np

    if not stream.tell():
        stream.write(",".join(_quoted(name) for name in _columns(names, flat.shape[1])) + "\n")
    np.savetxt(stream, flat, fmt="%.9g", delimiter=",")


def _quoted(name: str) -> str:
    """Return a column's name as a cell of a .csv file."""
    if any(character in name for character in ',"\n\r'):
        return '"' + name.replace('"', '""') + '"'
    return name


@contextmanager
def parquet_writer(place: Path, names: Sequence[str] | None) -> Iterator[Callable[[Array], None]]:
    """Hand out a function that writes rows (k, width), as often as it is called, to one Parquet file.

    Rows become row groups of about 100,000 whatever the parts are in which they come.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("Writing .parquet", "pyarrow", "tables") from None
    writer: Any = None
    waiting: list[Any] = []

    def flush() -> None:
        if waiting:
            writer.write_table(pyarrow.concat_tables(waiting), row_group_size=_ROW_GROUP)
            waiting.clear()

    def write(flat: Array) -> None:
        nonlocal writer
        arrays = [flat[:, index] for index in range(flat.shape[1])]
        table = pyarrow.table(arrays, names=_columns(names, flat.shape[1]))
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(place, table.schema)
        waiting.append(table)
        if sum(len(part) for part in waiting) >= _ROW_GROUP:
            flush()

    try:
        yield write
        flush()
    finally:
        if writer is not None:
            writer.close()


def write_samples(path: Path, samples: Array, names: Sequence[str] | None = None) -> str | None:
    """Write samples as rows, as a folder of PNG files, or as one PNG with all of them in a grid.

    Returns
    -------
    str or None
        For pictures: how values became grey, in words.

    Raises
    ------
    InvalidParameterError
        When pictures are asked for and samples are none.
    """
    suffix = path.suffix.lower()
    if suffix in TABLES:
        write_rows(path, samples, names)
        return None
    pixels, told = _pixels(samples)
    if suffix == FOLDER:
        digits = len(str(len(pixels) - 1))
        with aside(path, folder=True) as place:
            for index, picture in enumerate(pixels):
                _image(picture).save(place / f"{index:0{digits}d}.png", format="PNG")
    else:
        with aside(path) as place:
            _image(_grid(pixels)).save(place, format="PNG")
    return told


def check_pictures(path: Path, shape: tuple[int, ...]) -> None:
    """Raise when ``path`` asks for pictures and samples of this shape are none."""
    if path.suffix.lower() in TABLES:
        return
    if not (len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3, 4))):
        raise InvalidParameterError(
            f"Samples must have the shape (height, width) or (channels, height, width) to be written as "
            f"pictures; got {shape}. Write {' or '.join(TABLES)} instead, or train with --input-shape."
        )


def _pixels(samples: Array) -> tuple[Array, str]:
    """Return samples as bytes of shape (n, height, width[, channels]).

    Values that lie about [0, 1] are taken as such and cut off there; any other range is stretched
    from its lowest to its highest value, the same for all samples.
    """
    import numpy as np

    check_pictures(Path("pictures"), samples.shape[1:])
    low, high = float(samples.min()), float(samples.max())
    if low > -0.5 and high < 1.5:
        low, high, told = 0.0, 1.0, "values from 0 to 1 became black to white"
    else:
        told = f"values from {low:.4g} to {high:.4g} became black to white"
    unit = (samples - low) / max(high - low, 1e-12)
    pixels = np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)
    if pixels.ndim == 4:
        pixels = pixels[:, 0] if pixels.shape[1] == 1 else np.moveaxis(pixels, 1, -1)
    return pixels, told


def _grid(pixels: Array, gap: int = 2) -> Array:
    """Return all pictures on one white sheet, row by row."""
    import numpy as np

    n, height, width = pixels.shape[:3]
    across = int(np.ceil(np.sqrt(n)))
    down = -(-n // across)
    sheet = (down * (height + gap) + gap, across * (width + gap) + gap, *pixels.shape[3:])
    made = np.full(sheet, 255, dtype=np.uint8)
    for index, picture in enumerate(pixels):
        top = gap + index // across * (height + gap)
        left = gap + index % across * (width + gap)
        made[top : top + height, left : left + width] = picture
    return made


def _image(pixels: Array) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("Writing pictures", "Pillow", "images") from None
    return Image.fromarray(pixels)
