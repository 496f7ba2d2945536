"""How modules are loaded when a name is first touched."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import Any


def touched(module: str, name: str) -> Any:
    """Return what is called ``name`` in a module, which is imported where that has not been done yet.

    Garbage collection rests meanwhile: it would look through all that torch and scikit-learn make while
    they load, several times, which takes a tenth of the time and frees nothing.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return getattr(import_module(module), name)
    finally:
        if collecting:
            gc.enable()
