"""What all parts share: settings that can be read, set, compared, named and written down.

A part is a small value: a dataclass whose fields are its settings. It offers the two
methods by which scikit-learn reaches into nested objects (``get_params``, ``set_params``),
so ``GridSearchCV`` tunes ``corruption__fraction`` without this folder knowing scikit-learn.
"""

from __future__ import annotations

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
        """Set settings by name (``part__setting`` for nested ones) and check them."""
        known = [f.name for f in fields(self)]
        for key, value in params.items():
            head, _, rest = key.partition("__")
            if head not in known:
                raise InvalidParameterError(
                    f"a setting of {type(self).__name__} must be a known name; got {key!r}. "
                    + did_you_mean(head, known)
                )
            if rest:
                getattr(self, head).set_params(**{rest: value})
            else:
                setattr(self, head, value)
        self.validate()
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"name": ..., setting: value, ...}``; None and defaults are left out."""
        out: dict[str, Any] = {"name": self.name}
        for f in fields(self):
            value = getattr(self, f.name)
            default = f.default if f.default_factory is MISSING else f.default_factory()
            if value != default or f.default is MISSING:
                out[f.name] = to_plain(value)
        return out

    def __str__(self) -> str:
        settings = ", ".join(f"{k}={v!r}" for k, v in self.to_dict().items() if k != "name")
        return f"{self.name}({settings})" if settings else self.name


def to_plain(value: Any) -> Any:
    """Return ``value`` with parts turned into dicts and tuples into lists: ready for JSON and TOML."""
    if isinstance(value, Part):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return value


def known_parts(axis: type[PartType]) -> dict[str, type[PartType]]:
    """Return the final classes of one axis by name."""
    found: dict[str, type[PartType]] = {}
    for cls in axis.__subclasses__():
        if cls.name:
            found[cls.name] = cls
        found.update(known_parts(cls))
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
    """Raise InvalidParameterError unless ``value`` is a number between ``low`` and ``high``."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number and hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # numpy scalars
        value, number = value.item(), True
    kind = "an integer" if integer else "a number"
    rule = kind
    if low is not None:
        rule += f" {'>' if open_low else '>='} {low:g}"
    if high is not None:
        rule += f"{' and' if low is not None else ''} {'<' if open_high else '<='} {high:g}"
    good = number and (not integer or float(value) == int(value) if number and value == value else False)  # type: ignore[arg-type, call-overload]
    if good and low is not None:
        good = value > low if open_low else value >= low  # type: ignore[operator]
    if good and high is not None:
        good = value < high if open_high else value <= high  # type: ignore[operator]
    if not good:
        raise InvalidParameterError(f"{what} must be {rule}; got {value!r}.{' ' + hint if hint else ''}")
