"""What all parts share: settings that can be read, set, compared, named and written down.

A part is a small value: a dataclass whose fields are its settings. It offers the two
methods by which scikit-learn reaches into nested objects (``get_params``, ``set_params``),
so ``GridSearchCV`` tunes ``corruption__fraction`` without this folder knowing scikit-learn.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Self, TypeVar

from diabolo.errors import InvalidParameterError
from diabolo.names import check_name, did_you_mean

PartType = TypeVar("PartType", bound="Part")


@dataclass
class Part:
    """Base of every part. Abstract: the six axes derive from it."""

    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        self._settle()

    def _settle(self) -> None:
        """Turn lists and arrays into tuples, so that equal settings compare equal, and check."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, list):
                setattr(self, f.name, tuple(value))
            elif getattr(value, "ndim", 0) == 1:
                setattr(self, f.name, tuple(value.tolist()))
        self.validate()

    def validate(self) -> None:
        """Raise InvalidParameterError where a setting is outside its range."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings by name; with ``deep`` those of nested parts too."""
        params = {f.name: getattr(self, f.name) for f in fields(self)}
        if deep:
            for key, value in list(params.items()):
                if isinstance(value, Part):
                    params.update({f"{key}__{k}": v for k, v in value.get_params().items()})
        return params

    def set_params(self, **params: Any) -> Self:
        """Set settings by name (``part__setting`` for nested ones) and check them.

        Raises
        ------
        InvalidParameterError
            For an unknown name, or a value out of range; the part then stays as it was.
        """
        known = [f.name for f in fields(self)]
        before = {name: getattr(self, name) for name in known}
        try:
            for key, value in params.items():
                head, _, rest = key.partition("__")
                if head not in known or (rest and not isinstance(before[head], Part)):
                    raise InvalidParameterError(
                        f"a setting of {type(self).__name__} must be a known name; got {key!r}. "
                        + (did_you_mean(head, known) if known else f"{self.name!r} has no settings.")
                    )
                if rest:
                    getattr(self, head).set_params(**{rest: value})
                else:
                    setattr(self, head, value)
            self._settle()
        except InvalidParameterError:
            for name, value in before.items():
                setattr(self, name, value)
            raise
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"name": ..., setting: value, ...}``; None and defaults are left out."""
        out: dict[str, Any] = {"name": self.name}
        for f in fields(self):
            value = to_plain(getattr(self, f.name))
            if f.default is MISSING or value != to_plain(f.default):
                out[f.name] = value
        return out

    def __str__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in self.to_dict().items() if k != "name")
        return f"{self.name}({settings})" if settings else self.name


def to_plain(value: Any) -> Any:
    """Return ``value`` ready for JSON and TOML: parts as dicts, tuples as lists, arrays as numbers."""
    if isinstance(value, Part):
        return value.to_dict()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return value


def known_parts(axis: type[PartType]) -> dict[str, type[PartType]]:
    """Return the final classes of one axis by name.

    A class derived from one of them goes by a name only if it has one of its own, and never takes
    another's place.
    """
    found: dict[str, type[PartType]] = {}
    for cls in axis.__subclasses__():
        if cls.__dict__.get("name"):
            found.setdefault(cls.name, cls)
        for name, derived in known_parts(cls).items():
            found.setdefault(name, derived)
    return found


def from_dict(axis: type[PartType], what: str, data: dict[str, Any]) -> PartType:
    """Build the part that ``to_dict`` wrote down. ``what`` names the parameter in error messages."""
    settings = dict(data)
    known = known_parts(axis)
    cls = known[check_name(f"{what}.name", settings.pop("name", None), known)]
    names = [f.name for f in fields(cls)]
    for key in settings:
        if key not in names:
            raise InvalidParameterError(
                f"{what}.{key} must be a setting of {cls.name!r}; got {key!r}. "
                + (did_you_mean(key, names) if names else f"{cls.name!r} has no settings.")
            )
    return cls(**settings)


def from_text(axis: type[PartType], what: str, text: str) -> PartType:
    """Build a part from ``"name"``, ``"name:value"`` or ``"name:setting=value,setting=value"``.

    A bare value is the first setting: ``"masking:0.3"`` is ``"masking:fraction=0.3"``.
    """
    name, _, rest = text.partition(":")
    known = known_parts(axis)
    cls = known[check_name(what, name.strip(), known)]
    names = [f.name for f in fields(cls)]
    settings: dict[str, Any] = {}
    for position, item in enumerate(filter(None, (piece.strip() for piece in rest.split(",")))):
        key, equals, value = item.partition("=")
        if not equals:
            key, value = (names[position] if position < len(names) else item), item
        if key.strip() in settings:
            raise InvalidParameterError(
                f"every setting in {what}={text!r} must be given once; got {key.strip()!r} twice."
            )
        settings[key.strip()] = _parse(value.strip())
    return from_dict(axis, what, {"name": cls.name, **settings})


def _parse(text: str) -> Any:
    plain = {"true": True, "false": False, "none": None}
    if text.lower() in plain:
        return plain[text.lower()]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def as_part(axis: type[PartType], what: str, value: object) -> PartType:
    """Return ``value`` as a part of ``axis``: a part already, a text, or a dict.

    Raises
    ------
    InvalidParameterError
        For anything else, or an unknown name (with its nearest neighbours).
    """
    if isinstance(value, axis):
        value.validate()
        return value
    if isinstance(value, str):
        return from_text(axis, what, value)
    if isinstance(value, dict):
        return from_dict(axis, what, value)
    raise InvalidParameterError(
        f"{what} must be a name or a {axis.__name__} part; got {value!r}. "
        + did_you_mean(str(value), known_parts(axis))
    )


def check_range(
    what: str,
    value: object,
    *,
    low: float | None = None,
    high: float | None = None,
    open_low: bool = False,
    open_high: bool = False,
    integer: bool = False,
    hint: str = "",
) -> None:
    """Raise InvalidParameterError unless ``value`` is a finite number between ``low`` and ``high``."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # numpy scalars
        value = value.item()
    rule = "an integer" if integer else "a number"
    if low is not None:
        rule += f" {'>' if open_low else '>='} {low:g}"
    if high is not None:
        rule += f"{' and' if low is not None else ''} {'<' if open_high else '<='} {high:g}"
    good = isinstance(value, int if integer else (int, float)) and not isinstance(value, bool)
    if isinstance(value, (int, float)):
        good = good and math.isfinite(value)
        if low is not None:
            good = good and (value > low if open_low else value >= low)
        if high is not None:
            good = good and (value < high if open_high else value <= high)
    if not good:
        raise InvalidParameterError(f"{what} must be {rule}; got {value!r}.{' ' + hint if hint else ''}")


def check_flag(what: str, value: object) -> None:
    """Raise InvalidParameterError unless ``value`` is True or False."""
    if to_plain(value) is not True and to_plain(value) is not False:
        raise InvalidParameterError(f"{what} must be True or False; got {value!r}.")


def check_widths(what: str, values: object) -> None:
    """Raise InvalidParameterError unless ``values`` is a sequence of integers >= 1."""
    plain = to_plain(values)
    if not isinstance(plain, list):
        raise InvalidParameterError(f"{what} must be a sequence of integers >= 1; got {values!r}.")
    for width in plain:
        check_range(f"every number in {what}", width, low=1, integer=True)
