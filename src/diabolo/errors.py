"""Everything that diabolo raises or warns about, on purpose.

    DiaboloError
     ├── InvalidDataError (ValueError)         the rows, images or columns given
     ├── InvalidParameterError (ValueError)    a setting is out of its range
     │    └── IncompatiblePartsError           two settings that do not fit each other
     ├── DataFileError (ValueError)            a data file that cannot be read
     ├── ModelFileError (ValueError)           a model file that is damaged, foreign or hostile
     ├── CheckpointError (ValueError)          a checkpoint that is damaged, or another run's
     ├── DivergedError (RuntimeError)          training produced no finite weights
     ├── DownloadError (OSError)               a data set that could not be fetched
     └── MissingExtraError (ImportError)       an optional library is not installed

    DiaboloWarning (UserWarning)
     ├── CollapseWarning                       latent units that carry nothing
     ├── CheckpointWarning                     a checkpoint could not be written
     ├── DivergenceWarning                     training went back and lowered its rate
     ├── CalibrationWarning                    too few held-out rows for the rate that was asked for
     ├── DetectionWarning                      a detector that cannot tell anomalies from normal rows
     └── SkippedWarning                        samples that could not be read were left out

A message reads "<what> must be <rule>; got <value>. <what to do>".
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path

_PACKAGE = f"{Path(__file__).parent}{os.sep}"


class DiaboloError(Exception):
    """Base of every error that diabolo raises on purpose."""


class InvalidDataError(DiaboloError, ValueError):
    """The data given cannot be used as they are."""


class InvalidParameterError(DiaboloError, ValueError):
    """A setting is outside its range."""


class IncompatiblePartsError(InvalidParameterError):
    """Two settings, each fine alone, that do not fit each other."""


class DataFileError(DiaboloError, ValueError):
    """A data file is missing, damaged or of an unknown format."""


class ModelFileError(DiaboloError, ValueError):
    """A model file is missing, damaged, foreign or hostile."""


class CheckpointError(DiaboloError, ValueError):
    """A checkpoint is damaged, cannot be written, or belongs to another run."""


class DivergedError(DiaboloError, RuntimeError):
    """Training diverged at every learning rate that was tried."""


class DownloadError(DiaboloError, OSError):
    """A data set could not be fetched, or what came was not what was asked for."""


class MissingExtraError(DiaboloError, ImportError):
    """An optional library is needed for this and not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs {package}, which is not installed. Run: pip install 'diabolo[{extra}]'"
        )


class DiaboloWarning(UserWarning):
    """Base of every warning that diabolo gives."""


class CollapseWarning(DiaboloWarning):
    """Latent units carry no information about the input."""


class CheckpointWarning(DiaboloWarning):
    """A checkpoint could not be written; training goes on without it."""


class DivergenceWarning(DiaboloWarning):
    """The loss diverged; training went back to the last good state with a lower rate."""


class CalibrationWarning(DiaboloWarning):
    """There are too few held-out rows to promise the false-alarm rate that was asked for."""


class DetectionWarning(DiaboloWarning):
    """Anomalies planted into normal rows look as normal as these."""


class SkippedWarning(DiaboloWarning):
    """Samples of a source could not be read and were left out, as it was told to."""


def outside() -> int:
    """Return the ``stacklevel`` at which a warning of the calling function is about who called diabolo.

    That depends on the way: ``fit`` may have been called by another estimator's. Python 3.12 has
    ``skip_file_prefixes`` for this.
    """
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
