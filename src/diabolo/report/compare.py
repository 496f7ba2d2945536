"""Several kinds trained on the same rows, measured on the same held-out rows, beside PCA and the mean."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diabolo import metrics
from diabolo.errors import InvalidDataError, InvalidParameterError
from diabolo.kinds import BY_NAME
from diabolo.names import check_name

Progress = Callable[[str, dict[str, Any], int], None]

MOST_CODE = 32  # the largest code that `compare` chooses by itself
_SPARSE = 0.5  # share of units active on a sample, up to which a code is called sparse

# key of a row -> (heading, how to write it, higher is better: True, False or None where neither is)
COLUMNS: dict[str, tuple[str, str, bool | None]] = {
    "kind": ("kind", "text", None),
    "error": ("squared error", "number", False),
    "r2": ("R²", "fixed", True),
    "feature_r2": ("R², features alike", "fixed", True),
    "noisy_error": ("error, noisy input", "number", False),
    "noisy_r2": ("R², noisy input", "fixed", True),
    "neighbour_accuracy": ("neighbours agree", "share", True),
    "code_size": ("code size", "count", None),
    "used_units": ("units used", "count", None),
    "active_share": ("active share", "share", None),
    "dead_units": ("dead units", "count", None),
    "saturated_share": ("saturated share", "share", None),
    "jacobian_norm": ("Jacobian ‖J‖²", "number", None),
    "relative_jacobian": ("Jacobian, relative", "number", None),
    "n_parameters": ("parameters", "count", None),
    "fit_seconds": ("seconds", "seconds", None),
}


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` measured.

    Attributes
    ----------
    rows : list of dict
        One per kind in the order asked for, then "pca" at the common code size and "pca k" with as many
        components as an over-complete code uses units, then "mean". Keys: ``kind``, ``error`` (squared
        error summed over a sample, mean over test samples, in the units of X), ``r2`` (against the mean
        of the training rows), ``feature_r2`` (tables only: R² of each feature, averaged),
        ``noisy_error`` and ``noisy_r2`` (the same when the input is noisy and the target clean),
        ``neighbour_accuracy`` (share in [0, 1], NaN without labels), ``code_size``, ``used_units`` (see
        :func:`used_units`), ``active_share``, ``dead_units``, ``saturated_share``, ``jacobian_norm`` (in
        scaled units; PCA's, whose components are orthonormal in any, is its code size),
        ``relative_jacobian`` (the same whatever the scale of the code, see :meth:`Autoencoder.diagnostics`),
        ``n_parameters``, ``fit_seconds``. NaN where a number does not apply.
    estimators : dict
        The fitted estimators by kind; without PCA and the mean.
    settings : dict
        What was asked for: sizes, noise, seed, parameters.
    """

    rows: list[dict[str, Any]]
    estimators: dict[str, Any] = field(repr=False)
    settings: dict[str, Any] = field(default_factory=dict)

    def columns(self) -> list[str]:
        """Return the keys worth a column: those with a number in at least one row."""
        return [key for key in COLUMNS if any(not _is_nan(row.get(key, math.nan)) for row in self.rows)]

    def best(self, key: str) -> set[str]:
        """Return the kinds that are best in one column; empty where no direction is better."""
        better = COLUMNS[key][2]
        values = {row["kind"]: row[key] for row in self.rows if not _is_nan(row[key])}
        if better is None or len(values) < 2:
            return set()
        best = max(values.values()) if better else min(values.values())
        return {kind for kind, value in values.items() if value == best}

    def to_markdown(self) -> str:
        """Return the table in Markdown, the best of each column in bold."""
        columns = self.columns()
        lines = [
            "| " + " | ".join(COLUMNS[key][0] for key in columns) + " |",
            "|" + "|".join(" :--- " if key == "kind" else " ---: " for key in columns) + "|",
        ]
        for row in self.rows:
            cells = []
            for key in columns:
                text = format_value(row[key], COLUMNS[key][1])
                cells.append(f"**{text}**" if row["kind"] in self.best(key) else text)
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return rows and settings ready for JSON; NaN and infinite numbers become None."""
        return {"rows": _plain(self.rows), "settings": _plain(self.settings)}


def compare(
    kinds: Sequence[str],
    X_train: ArrayLike,
    X_test: ArrayLike,
    *,
    y_test: ArrayLike | None = None,
    latent_dim: int | None = None,
    params: Mapping[str, Any] | None = None,
    per_kind: Mapping[str, Mapping[str, Any]] | None = None,
    noise: float = 0.5,
    random_state: int = 0,
    progress: Progress | None = None,
    source: Any = None,
) -> Comparison:
    """Train every kind on the same rows and measure all of them, PCA and the mean on the same test rows.

    Parameters
    ----------
    kinds : sequence of str
        Names out of the table of kinds, each once.
    X_train, X_test : array-like of shape (n_samples, ...)
        Rows, signals or images, in the same units.
    y_test : array-like of shape (n_test,) or None, default=None
        Labels; with them the table says how well the code keeps classes apart.
    latent_dim : int or None, default=None
        The common size of the code, >= 1; PCA gets the same. None: half of the values of a sample, at
        most 32. Kinds whose code is over-complete by default (sparse ones) keep their own size, of which
        few units are used on a sample, unless there is no other kind; PCA gets a second row for each.
        ``per_kind`` may give any kind another size. Every row states its size.
    params : mapping or None, default=None
        Parameters for all kinds, for instance ``{"epochs": 50}``.
    per_kind : mapping of kind to mapping, or None, default=None
        Parameters for one kind; they win over ``params``.
    noise : float, default=0.5
        Standard deviation of the Gaussian noise on the noisy test input, >= 0, as a multiple of the
        typical standard deviation of a value of ``X_train``. All see the same noise.
    random_state : int, default=0
        Seed of the noise and of every estimator.
    progress : callable or None, default=None
        Called as ``progress(kind, row, total_epochs)`` after each epoch; where it has a method
        ``of(kind)``, what that returns is the ``progress`` of the kind's ``fit``.
    source : Source or None, default=None
        Where every kind learns from instead of ``X_train``, which is then a sample of its rows: PCA, the
        mean and the noise are fitted on it.

    Returns
    -------
    Comparison

    Raises
    ------
    InvalidParameterError
        For an unknown or repeated kind, or a parameter that an estimator refuses.
    InvalidDataError
        Where training and test samples differ in shape, or labels and samples in number.
    """
    names = [check_name("a kind to compare", kind, BY_NAME) for kind in kinds]
    _check(names, noise, per_kind)
    train, test = np.asarray(X_train), np.asarray(X_test)
    labels = None if y_test is None else np.asarray(y_test)
    if train.shape[1:] != test.shape[1:] or not len(train) or not len(test):
        raise InvalidDataError(
            f"X_test must be samples of the same shape as X_train's, at least one of each; "
            f"got shapes {test.shape} and {train.shape}."
        )
    if labels is not None and len(labels) != len(test):
        raise InvalidDataError(
            f"y_test must be one label per test sample; got {len(labels)} labels for {len(test)} samples."
        )
    common = common_size(train.shape[1:]) if latent_dim is None else latent_dim
    _check_size(common)
    learn_from = train if source is None else source
    bench = _Bench(train, test, labels, noise * metrics.typical_std(train), random_state, learn_from)
    given = {name: {**(params or {}), **(per_kind or {}).get(name, {})} for name in names}
    own_size = {name for name in names if _is_overcomplete(name, given[name])}
    if latent_dim is not None and len(own_size) == len(names):
        own_size = set()
    rows, estimators = [], {}
    for name in names:
        size = {} if name in own_size else {"latent_dim": common}
        estimator = _estimator(name, {**size, "random_state": random_state, **given[name]})
        row, estimators[name] = bench.measure(name, estimator, progress)
        rows.append(row)
    sizes = {row["used_units"] for row in rows if not _is_nan(row["used_units"])} - {common}
    rows += [bench.pca(common), *(bench.pca(size, f"pca {size}") for size in sorted(sizes)), bench.mean()]
    settings = {
        "latent_dim": common,
        "own_size": sorted(own_size),
        "noise": noise,
        "noise_std": bench.noise_std,
        "random_state": random_state,
        "n_train": len(learn_from),
        "n_test": len(test),
        "params": dict(params or {}),
        "per_kind": {kind: dict(own) for kind, own in (per_kind or {}).items()},
    }
    return Comparison(rows, estimators, settings)


def common_size(shape: Sequence[int]) -> int:
    """Return the code size that is compared where none is given: half of a sample's values, at most 32."""
    return max(1, min(MOST_CODE, math.prod(shape) // 2))


def used_units(codes: NDArray[Any], found: Mapping[str, Any], n_values: int) -> int | None:
    """Return how many units a sample uses on average, >= 1; None where a code is not sparse.

    A code is sparse where at most half of its units are active on a sample. Units that are not exactly
    0 count as active; in a code wider than the ``n_values`` of a sample, where squashed units are never
    exactly 0, ``found["active_share"]`` of the diagnostics decides.
    """
    share = float(metrics.code_activity(codes).mean())
    if share > _SPARSE and codes.shape[1] > n_values:
        share = float(found["active_share"])
    return max(1, round(share * codes.shape[1])) if share <= _SPARSE else None


def _estimator(kind: str, parameters: Mapping[str, Any]) -> Any:
    return getattr(import_module("diabolo"), BY_NAME[kind].estimator)(**parameters)


def _is_overcomplete(kind: str, parameters: Mapping[str, Any]) -> bool:
    """Whether a kind's code is wider than the input where nobody says how wide."""
    from diabolo.parts import KLSparsity, Latent, as_part
    from diabolo.recipe import as_penalties

    estimator = _estimator(kind, parameters)
    latent = as_part(Latent, "latent", estimator.latent)  # type: ignore[type-abstract]
    return latent.overcomplete or any(isinstance(p, KLSparsity) for p in as_penalties(estimator.penalty))


def _check(names: list[str], noise: float, per_kind: Mapping[str, Mapping[str, Any]] | None) -> None:
    if not names or len(set(names)) < len(names):
        raise InvalidParameterError(
            f"the kinds to compare must be at least one, each named once; got {names}. Name each kind once."
        )
    for kind in per_kind or {}:
        check_name("a kind with parameters of its own", kind, names)
    if not noise >= 0 or math.isinf(noise):
        raise InvalidParameterError(f"noise must be a number >= 0; got {noise!r}. Use 0.5 for half a std.")


def _check_size(latent_dim: Any) -> None:
    if not isinstance(latent_dim, int | np.integer) or isinstance(latent_dim, bool) or latent_dim < 1:
        raise InvalidParameterError(f"latent_dim must be an integer >= 1; got {latent_dim!r}.")


class _Bench:
    """The one place where everybody is measured, so that nobody is measured differently."""

    def __init__(
        self,
        train: NDArray[Any],
        test: NDArray[Any],
        labels: NDArray[Any] | None,
        noise_std: float,
        random_state: int,
        learn_from: Any,
    ) -> None:
        self.train, self.test, self.labels, self.learn_from = train, test, labels, learn_from
        self.noise_std, self.random_state = noise_std, random_state
        generator = np.random.default_rng(random_state)
        self.noisy = test + (noise_std * generator.standard_normal(test.shape)).astype(np.float32)
        self.center = train.mean(axis=0, dtype=np.float64)

    def measure(self, kind: str, estimator: Any, progress: Progress | None) -> tuple[dict[str, Any], Any]:
        options: dict[str, Any] = {}
        if progress is not None:
            named = getattr(progress, "of", None)
            options["progress"] = named(kind) if named else lambda row, total: progress(kind, row, total)
        start = time.perf_counter()
        estimator.fit(self.learn_from, **options)
        seconds = time.perf_counter() - start
        row = self._errors(kind, estimator.reconstruct(self.test), estimator.reconstruct(self.noisy))
        found = estimator.diagnostics(self.test)
        row |= {key: found[key] for key in ("code_size", "active_share", "dead_units")}
        row |= {key: found[key] for key in ("saturated_share", "jacobian_norm", "relative_jacobian")}
        row |= {"n_parameters": int(estimator.n_parameters_), "fit_seconds": seconds}
        codes = estimator.transform(self.test)
        used = used_units(codes, found, metrics.flat(self.test).shape[1])
        row |= {} if used is None else {"used_units": used}
        return row | self._neighbours(codes), estimator

    def pca(self, n_components: int, name: str = "pca") -> dict[str, Any]:
        start = time.perf_counter()
        fitted = metrics.pca(self.train, n_components, self.random_state)
        seconds = time.perf_counter() - start
        codes = fitted.transform(metrics.flat(self.test))

        def restore(X: NDArray[Any]) -> NDArray[Any]:
            restored: NDArray[Any] = fitted.inverse_transform(fitted.transform(metrics.flat(X)))
            return restored.reshape(X.shape)

        row = self._errors(name, restore(self.test), restore(self.noisy))
        activity = metrics.code_activity(codes)
        # the encoder's Jacobian is the matrix of components, whose rows are orthonormal
        norm = float((fitted.components_**2).sum())
        spread = float(metrics.flat(self.test).var(axis=0).mean())
        row |= {
            "code_size": int(fitted.n_components_),
            "active_share": float(activity.mean()),
            "dead_units": int((activity == 0).sum()),
            "jacobian_norm": norm,
            "relative_jacobian": metrics.relative_jacobian(norm, float(codes.var(axis=0).sum()), spread),
            "n_parameters": int(fitted.components_.size + fitted.mean_.size),
            "fit_seconds": seconds,
        }
        return row | self._neighbours(codes)

    def mean(self) -> dict[str, Any]:
        constant = np.broadcast_to(self.center, self.test.shape)
        row = self._errors("mean", constant, constant)
        return row | {"code_size": 0, "jacobian_norm": 0.0, "n_parameters": int(self.center.size)}

    def _errors(self, kind: str, clean: NDArray[Any], noisy: NDArray[Any]) -> dict[str, Any]:
        return dict.fromkeys(COLUMNS, math.nan) | {
            "kind": kind,
            "error": float(metrics.squared_error(self.test, clean).mean()),
            "r2": metrics.r2(self.test, clean, self.center),
            "feature_r2": metrics.feature_r2(self.test, clean, self.center)
            if self.test.ndim == 2
            else math.nan,
            "noisy_error": float(metrics.squared_error(self.test, noisy).mean()),
            "noisy_r2": metrics.r2(self.test, noisy, self.center),
        }

    def _neighbours(self, codes: NDArray[Any]) -> dict[str, Any]:
        if self.labels is None:
            return {}
        return {"neighbour_accuracy": metrics.neighbour_accuracy(codes, self.labels)}


def format_value(value: Any, style: str = "number") -> str:
    """Return a number as a table shows it: three significant digits, counts with commas, NaN as a dash."""
    if isinstance(value, str):
        return value
    if _is_nan(value):
        return "–"
    if style == "count":
        return f"{int(value):,}"
    if style == "share":
        return f"{100 * value:.1f} %"
    if style == "seconds" and value < 0.1:
        return "< 0.1"
    if style == "fixed":
        return f"{value:.3f}"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.3g}"
    return f"{value:.3g}"


def _is_nan(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
