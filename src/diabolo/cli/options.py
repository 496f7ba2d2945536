"""The options that commands share, and those made of `diabolo.parameters.Parameters`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.errors import InvalidParameterError
from diabolo.kinds import BY_NAME
from diabolo.names import check_name, did_you_mean
from diabolo.parameters import Parameters

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file that `train` wrote.")]
DATA_HELP = (
    "A file (.npy, .npz, .csv, .tsv, .parquet, idx, a picture), a folder of pictures, of idx files or of the "
    ".parquet or .npy files that are parts of one table, or the name of a data set (digits, mnist, "
    "fashion-mnist, olivetti)."
)
DataName = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]

_LABEL = "The column of a table, or the array of a .npz file, that holds the labels: no input of the model."
_DATA_HOME = (
    "The folder where data sets with a name are looked for first, and downloaded to. After it come the "
    "environment's DIABOLO_DATA and the user's cache."
)
_IMAGE_SIZE = "Resize pictures to this height and width, in pixels."


@dataclass(frozen=True)
class SourceOptions:
    """How DATA is read."""

    label: Annotated[str | None, typer.Option("--label", metavar="COLUMN", help=_LABEL)] = None
    data_home: Annotated[Path | None, typer.Option("--data-home", metavar="DIR", help=_DATA_HOME)] = None
    image_size: Annotated[str | None, typer.Option("--image-size", metavar="H,W", help=_IMAGE_SIZE)] = None


@dataclass(frozen=True)
class StreamOptions:
    """Whether DATA is read piece by piece instead of as a whole."""

    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            help="Read DATA (.npy, .parquet, a folder of these or of pictures) piece by piece, so that it "
            "need not fit into the memory. Not given: where it would take more than a quarter of the memory "
            "that is free.",
        ),
    ] = None
    broken: Annotated[
        str | None,
        typer.Option(
            "--broken",
            metavar="TEXT",
            help="What is done about pictures, or files of a folder of .parquet or .npy files, that cannot "
            "be read: refuse, or skip and count them. Implies --stream. (default: refuse)",
        ),
    ] = None


@dataclass(frozen=True)
class ScanOptions:
    """How scans are read."""

    volume: Annotated[
        int | None,
        typer.Option(
            "--volume",
            metavar="N",
            help="Of NIfTI files with several volumes (times, directions), the one to take, counted from 0.",
        ),
    ] = None
    fill: Annotated[
        float | None,
        typer.Option(
            "--fill",
            metavar="X",
            help="The value put where voxels of a scan are NaN or infinite, as some programs write the "
            "background.",
        ),
    ] = None


@dataclass(frozen=True)
class MapOptions:
    """How a map of images looks at them."""

    volumes: Annotated[
        bool, typer.Option("--volumes", help="With a map: look at scans as volumes instead of slices.")
    ] = False
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            metavar="NAME",
            help="With a map: 'tiles' for surfaces, where anything may lie anywhere, or 'aligned' for images "
            "of one size that show the same thing in the same place. (default: tiles)",
        ),
    ] = None
    polarity: Annotated[
        str | None,
        typer.Option(
            "--polarity",
            metavar="NAME",
            help="With an aligned map: count what is 'bright'er than it should be, 'dark'er, or 'both'. "
            "(default: both)",
        ),
    ] = None
    symmetric: Annotated[
        bool,
        typer.Option(
            "--symmetric",
            help="With an aligned map: left and right are alike, as of a head; take off what the other side "
            "leaves over too.",
        ),
    ] = False

    def given(self) -> dict[str, Any]:
        """Return what was chosen, as ``AnomalyMap`` has it."""
        chosen = {
            "n_dims": 3 if self.volumes else None,
            "layout": self.layout,
            "polarity": self.polarity,
            "symmetry": -1 if self.symmetric else None,
        }
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class Reader:
    """How one parameter is read from text or from TOML."""

    name: str
    element: type
    is_sequence: bool
    takes_none: bool

    @property
    def flag(self) -> str:
        """The option on the command line, for example ``--latent-dim``."""
        return "--" + self.name.replace("_", "-")

    @property
    def rule(self) -> str:
        """What a value must be, in words."""
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        rule = words[self.element]
        if self.is_sequence:
            rule = "whole numbers joined by commas, such as 512,256"
        return rule + (" or none" if self.takes_none else "")

    @property
    def metavar(self) -> str:
        """The stand-in for a value on the help page."""
        return "N,N,..." if self.is_sequence else {int: "N", float: "X"}.get(self.element, "TEXT")

    def __call__(self, value: Any) -> Any:
        """Return ``value`` in the type that the estimators take.

        Raises
        ------
        InvalidParameterError
            When it cannot be read as that.
        """
        try:
            return self._read(value)
        except (ValueError, TypeError):
            raise InvalidParameterError(
                f"{self.name} must be {self.rule}; got {value!r}. "
                "See 'diabolo train --help' for what it means."
            ) from None

    def _read(self, value: Any) -> Any:
        if isinstance(value, str) and value.strip().lower() == "none":
            if self.takes_none:
                return None
            raise ValueError(value)
        if self.is_sequence:
            items = value.strip(" ()[],").split(",") if isinstance(value, str) else value
            if isinstance(items, (int, float)):
                items = [items]
            return tuple(self._one(item) for item in items if item != "")
        return self._one(value)

    def _one(self, value: Any) -> Any:
        if self.element is str or self.element is bool:
            if not isinstance(value, self.element):
                raise TypeError(value)
            return value.strip() if isinstance(value, str) else value
        if isinstance(value, bool):
            raise TypeError(value)
        read = self.element(value)
        if not isinstance(value, str) and read != value:  # int(2.5) would lose the half
            raise ValueError(value)
        return read


def _reader(spec: Field[Any]) -> Reader:
    annotation = str(spec.type)
    element: type = str
    for word, kind in (("bool", bool), ("str", str), ("float", float), ("int", int)):
        if word in annotation:
            element = kind
            break
    is_sequence = annotation.startswith("Sequence[int]")
    # TOML and the shell have no None: where the library takes None as text, "none" says it.
    return Reader(spec.name, int if is_sequence else element, is_sequence, "None" in annotation)


READERS: dict[str, Reader] = {
    spec.name: _reader(spec)
    for spec in fields(Parameters)
    if spec.name != "verbose"  # the progress bar and --quiet say it here
}


def _option(reader: Reader) -> tuple[str, Any, Any]:
    description = str(Parameters.__dataclass_fields__[reader.name].metadata["help"])
    panel = "Parameters (left out: the kind's default; for None write none)"
    if reader.element is bool:
        declared = f"{reader.flag}/--no-{reader.flag[2:]}"
        option = typer.Option(declared, help=description, rich_help_panel=panel)
        return reader.name, Annotated[bool | None, option], field(default=None)
    option = typer.Option(reader.flag, metavar=reader.metavar, help=description, rich_help_panel=panel)
    return reader.name, Annotated[str | None, option], field(default=None)


if TYPE_CHECKING:

    @dataclass(frozen=True)
    class ParameterOptions:
        """Stands for the class made below, whose fields no type checker could know."""
else:
    ParameterOptions = make_dataclass(
        "ParameterOptions", [_option(reader) for reader in READERS.values()], frozen=True
    )
    ParameterOptions.__doc__ = "Every parameter of the estimators as an option; None where it was not given."
    ParameterOptions.__module__ = __name__


def given(options: ParameterOptions) -> dict[str, Any]:
    """Return the parameters given on the command line, read into the estimators' types.

    Raises
    ------
    InvalidParameterError
        When a value cannot be read as its parameter's type.
    """
    texts = {name: getattr(options, name) for name in READERS}
    return {name: READERS[name](text) for name, text in texts.items() if text is not None}


def split_parameters(
    settings: Mapping[str, Any], others: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``settings`` parted into the command's own and the estimator's parameters.

    Parameters
    ----------
    settings : mapping
        Keys as in a TOML file; a dash means an underscore.
    others : mapping
        The command's own settings by name, with a function that reads each.

    Raises
    ------
    InvalidParameterError
        When a key is neither, naming the nearest that is.
    """
    own: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    for key, value in settings.items():
        name = key.replace("-", "_")
        if name in READERS:
            parameters[name] = READERS[name](value)
        elif name in others:
            own[name] = others[name](value)
        else:
            raise InvalidParameterError(
                f"A setting must be a known name; got {key!r}. {did_you_mean(name, [*others, *READERS])}"
            )
    return own, parameters


def check_kind(name: str) -> str:
    """Return ``name`` if it is that of a kind; else say which come near."""
    return check_name("kind", name, BY_NAME)


def sizes(what: str, text: str | None) -> tuple[int, ...] | None:
    """Return "28,28" or "28x28" as (28, 28); None stays None."""
    if text is None:
        return None
    try:
        read = tuple(int(part) for part in text.lower().replace("x", ",").split(","))
    except ValueError:
        read = ()
    if not read or min(read) < 1:
        raise InvalidParameterError(
            f"{what} must be whole numbers from 1 up, joined by commas; got {text!r}. Give for example 28,28."
        )
    return read
