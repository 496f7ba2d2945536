"""Between a fitted ``SignalDetector`` and the contents of its file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sklearn.base import clone

from diabolo.applications.files import contents, of_contents
from diabolo.applications.signals import SignalDetector, check_step
from diabolo.errors import InvalidParameterError
from diabolo.estimators.files import consistent
from diabolo.parts import check_range
from diabolo.persistence import SIGNALS, read_model, write_model


def write_signals(fitted: SignalDetector, path: str | os.PathLike[str]) -> Path:
    """Write a fitted detector of signals: the detector of its windows, and how these are cut.

    Raises
    ------
    InvalidParameterError
        For a ``window`` that was set after fit, or a ``step`` that does not go with it: no file holds such a
        mixture.
    ModelFileError
    """
    if fitted.window is None:
        fitted._check_uncut()
    elif fitted._length != fitted.window_:
        raise InvalidParameterError(
            f"window must be that of fit, {fitted.window_}; got {fitted.window}. Set it back, or fit anew."
        )
    else:
        check_step(fitted.step, fitted.window_)
    header, tensors = contents(fitted.detector_)
    signal = {
        "given": fitted.detector is not None,
        "window": fitted.window,
        "step": fitted.step,
        "n_channels": fitted.n_channels_,
        "length": fitted.window_,
    }
    return write_model(path, {**header, "signal": signal}, tensors, SIGNALS)


def read_signals(path: str | os.PathLike[str]) -> SignalDetector:
    """Read what ``write_signals`` wrote; every member is checked like a model file.

    Raises
    ------
    ModelFileError
    """
    header, tensors = read_model(path, SIGNALS)
    with consistent(path):
        return _unpack(header, tensors)


def _unpack(header: dict[str, Any], tensors: Any) -> SignalDetector:
    signal, detector = header["signal"], of_contents(header, tensors)
    for name in ("n_channels", "length"):
        check_range(name, signal[name], low=1, integer=True)
    if signal["n_channels"] * signal["length"] != detector._width:
        raise ValueError(
            f"windows of {signal['n_channels']} x {signal['length']} for {detector._width} values"
        )
    if signal["window"] is not None:
        check_range("window", signal["window"], low=2, integer=True)
        if check_step(signal["step"], signal["window"]) and signal["window"] != signal["length"]:
            raise ValueError(f"windows of {signal['length']} steps and not {signal['window']}")
    elif signal["step"] is not None:
        raise ValueError("steps between windows that are not cut")
    if type(signal["given"]) is not bool:
        raise TypeError(f"{signal['given']!r} is neither true nor false")
    out = SignalDetector(
        detector=clone(detector) if signal["given"] else None, window=signal["window"], step=signal["step"]
    )
    out.detector_, out.n_channels_, out.window_ = detector, signal["n_channels"], signal["length"]
    return out
