"""What may be set between two calls of ``partial_fit``, and what it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from diabolo.errors import InvalidParameterError
from diabolo.parameters import Parameters
from diabolo.parts.base import to_plain
from diabolo.recipe import Recipe, resolve

_CHANGEABLE = ("learning_rate", "weight_decay", "clip_norm", "batch_size")
# these play no part in it
_IDLE = ("epochs", "schedule", "patience", "validation_fraction", "random_state", "verbose")


def settings(parameters: Parameters) -> dict[str, str]:
    """Return every parameter in a form that tells one value from another."""
    return {f.name: repr(to_plain(getattr(parameters, f.name))) for f in fields(Parameters)}


def followed(
    parameters: Parameters, before: Mapping[str, str], recipe: Recipe, n_rows: int, default_depth: int | None
) -> Recipe:
    """Return the recipe with what was set since ``settings`` gave ``before``.

    Raises
    ------
    InvalidParameterError
        Where a parameter was changed that weights, scaling or the course hang on, or to a bad value.
    """
    now = settings(parameters)
    changed = [name for name in now if now[name] != before[name] and name not in _IDLE]
    for name in changed:
        if name not in _CHANGEABLE:
            raise InvalidParameterError(
                f"{name} must stay as it was when the training began; got {getattr(parameters, name)!r}. "
                f"Set it back, or call fit to begin anew; {', '.join(_CHANGEABLE)} may change."
            )
    if not changed:
        return recipe
    new = resolve(
        parameters,
        shape=recipe.input_shape,
        n_rows=max(n_rows, parameters.batch_size or 1),
        scaling=recipe.scaling,
        bounded=False,
        seed=recipe.seed,
        default_depth=default_depth,
    )
    return replace(recipe, **{name: getattr(new, name) for name in changed})
