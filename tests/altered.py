"""Headers of files as damage and malice make them: for tests that nothing but a worded error comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


def examples(n: int) -> Any:
    """Run a test n times, with the same n examples every time."""
    unshared = [HealthCheck.function_scoped_fixture]
    return settings(max_examples=n, deadline=None, derandomize=True, suppress_health_check=unshared)


def altered(header: Any, data: Any) -> Any:
    """Return a copy of a header, of which one entry at any depth, as ``data`` draws, is replaced or gone."""
    out = json.loads(json.dumps(header))
    places = list(_entries(out))
    place, key = places[data.draw(st.integers(0, len(places) - 1))]
    if data.draw(st.integers(0, 4)):
        place[key] = data.draw(ANYTHING)
    else:
        del place[key]
    return out


def _entries(place: Any) -> Iterator[tuple[Any, Any]]:
    """Return every entry: what holds it, and its key there."""
    for key in sorted(place) if isinstance(place, dict) else range(len(place)):
        yield place, key
        if isinstance(place[key], (dict, list)):
            yield from _entries(place[key])
