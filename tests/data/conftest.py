import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data():
    """The folder that holds the real data sets."""
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    for home in (os.environ.get("DIABOLO_DATA"), beside):
        if home and Path(home).is_dir():
            return Path(home)
    pytest.skip("the real data sets are neither in DIABOLO_DATA nor in ../shared/data")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No home of data but those that a test names, and no download."""
    import pooch

    def refuse(*args, **kwargs):
        raise AssertionError("a test tried to download")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.delenv("DIABOLO_DATA", raising=False)
    return monkeypatch


@pytest.fixture
def missing(monkeypatch):
    """Return a function that makes a library look as if it were not installed."""
    import sys

    def hide(name):
        for loaded in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
            monkeypatch.setitem(sys.modules, loaded, None)
        monkeypatch.setitem(sys.modules, name, None)

    return hide
