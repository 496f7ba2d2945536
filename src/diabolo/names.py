"""Names given as strings: look one up, or say which ones come near it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from diabolo.errors import InvalidParameterError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'?" when a known name comes near, else the list of known names.

    >>> did_you_mean("sigmiod", ["relu", "sigmoid"])
    "Did you mean 'sigmoid'?"
    >>> did_you_mean("banana", ["relu", "sigmoid"])
    "Choose one of 'relu', 'sigmoid'."
    """
    choices = sorted(known)
    near = get_close_matches(name, choices, n=3, cutoff=0.6)
    if near:
        return "Did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "Choose one of " + ", ".join(repr(c) for c in choices) + "."


def quoted(names: Iterable[object], most: int = 5) -> str:
    """Return names as a sentence shows them, the first few of many.

    >>> quoted(["a", "b"]), quoted("abcdefg")
    ("'a', 'b'", "'a', 'b', 'c', 'd', 'e' and 2 more")
    """
    listed = [repr(name) for name in names]
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest


def check_name(what: str, name: object, known: Iterable[str]) -> str:
    """Return ``name`` if it is one of ``known``.

    Raises
    ------
    InvalidParameterError
        Naming the nearest known names.
    """
    choices = list(known)
    if not isinstance(name, str) or name not in choices:
        raise InvalidParameterError(
            f"{what} must be a known name; got {name!r}. {did_you_mean(str(name), choices)}"
        )
    return name
