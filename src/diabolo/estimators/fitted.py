"""What a trained autoencoder does: codes, reconstructions, scores, samples, diagnostics, a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from diabolo.data.sources import Source
from diabolo.errors import InvalidDataError, InvalidParameterError
from diabolo.estimators import validation
from diabolo.estimators.diagnostics import diagnose
from diabolo.estimators.generation import CodeDensity, Reservoir
from diabolo.estimators.incoming import Incoming
from diabolo.estimators.inference import Inference, Net, decode, encode, restore
from diabolo.estimators.scoring import normality, spread, squares
from diabolo.parts import GaussianPosterior, Noisy
from diabolo.persistence import write_model
from diabolo.training import History

if TYPE_CHECKING:
    from diabolo.diagram import Diagram

Array = NDArray[Any]
Floats = NDArray[np.float32]

_AT_ONCE = 65536  # rows whose reconstructions are in memory at a time, about


class Fitted(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Inference, Incoming):  # type: ignore[misc]
    """All that needs a trained network and no training. Abstract: ``Autoencoder`` sets the attributes."""

    history_: History
    n_parameters_: int
    _mean: Array
    _codes: Floats | None
    _density: CodeDensity
    _given: dict[str, str]
    _kept: Reservoir

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    # ------------------------------------------------------------------ what goes out
    def transform(self, X: Any) -> Floats:
        """Map X to codes, (n_samples, code_size): the deterministic code, or the posterior's mean.

        Of a ``diabolo.data.Source`` a part at a time is in memory, but all of its codes;
        ``transform_batches`` hands them out one part after the other.
        """
        return self._applied(self._transformed, X)

    def transform_batches(self, source: Source) -> Iterator[Floats]:
        """Return the codes of a source's rows, in its order, in parts of some thousand rows."""
        return self._each(self._transformed, source)

    def _transformed(self, rows: Array) -> Floats:
        return self._batches(encode, rows)

    def inverse_transform(self, Z: Any) -> Floats:
        """Map codes (n_samples, code_size) back to samples of the shape and units of fit's X."""
        check_is_fitted(self)
        codes = np.asarray(Z, dtype=np.float32)
        size = self._n_features_out
        if codes.ndim != 2 or codes.shape[1] != size or not len(codes):
            raise InvalidDataError(
                f"codes must have the shape (n_samples, {size}); got {codes.shape}. "
                "Give codes as transform returns them."
            )
        if not np.isfinite(codes).all():
            raise InvalidDataError("codes must be finite; got NaN or inf. Drop such rows.")
        samples = self._run(decode, codes, self.module_.code_shape, self._scaler.unscale)
        return samples.reshape(-1, *self._row_shape)

    def _restored(self, rows: Array) -> Floats:
        return self._batches(restore, rows, self._scaler.unscale)

    def reconstruct(self, X: Any) -> Floats:
        """Return X as the network sees it, in X's shape and units, without any chance involved."""
        out = self._applied(self._restored, X)
        if isinstance(X, Source):
            return out.reshape(-1, *X.sample_shape)
        return (
            out.reshape(-1, *self.sample_shape_) if validation.n_extents(validation.as_array(X)) > 2 else out
        )

    def reconstruct_batches(self, source: Source) -> Iterator[Floats]:
        """Return what ``reconstruct`` makes of a source, in its order, in parts of some thousand rows."""
        for rows in self._each(self._restored, source):
            yield rows.reshape(-1, *source.sample_shape)

    def reconstruction_error(self, X: Any) -> Floats:
        """Return each sample's squared error, summed over its values, in X's units: (n_samples,)."""
        return self._applied(lambda rows: self._squares(rows, self._scaler.scale).astype(np.float32), X)

    def _squares(self, rows: Array, units: Array | float) -> NDArray[np.float64]:
        out, size = np.empty(len(rows)), self._rows_per_batch()
        step = -(-_AT_ONCE // size) * size
        for start in range(0, max(1, len(rows) - 1), step):  # no last row alone
            stop = start + step if len(rows) - start - step > 1 else len(rows)
            restored = self._batches(restore, rows, np.copyto, start, stop)
            out[start:stop] = squares(rows[start:stop], restored, self._scaler, units)
        return out

    def score_samples(self, X: Any) -> Floats:
        """Return how normal each sample is, (n_samples,), higher = more normal.

        The negative loss in scaled units, summed over a sample's values; with a Gaussian posterior
        the divergence from the prior is taken off too (with loss="gaussian" that is the bound on the
        log-likelihood in nats, at the posterior's mean). Where the loss is defined on an interval only
        (cross-entropy), a row beyond it scores as the row clipped, less twice the squared excess.
        """

        def score(net: Net, x: Tensor) -> Tensor:
            return normality(net, self.module_.loss, self.recipe_.loss, x)

        return self._applied(lambda rows: self._batches(score, rows), X)

    def score(self, X: Any, y: Any = None) -> float:
        """Return 1 - error / error of the mean predictor, in scaled units: 1 = perfect, 0 = the mean."""

        def sums(rows: Array) -> NDArray[np.float64]:
            return np.array([self._squares(rows, 1.0).sum(), spread(rows, self._mean, self._scaler)])

        parts = self._each(sums, X) if isinstance(X, Source) else [sums(self._check(X, reset=False))]
        left, total = (float(value) for value in sum(parts, np.zeros(2)))
        return 1.0 - left / total if total else float("nan")

    def sample(self, n: int = 1, *, random_state: int | np.random.RandomState | None = None) -> Floats:
        """Draw n new samples, of the shape and units of fit's X.

        Variational and stochastic codes are drawn from the standard normal distribution they were
        trained towards; other codes from a Gaussian mixture fitted on codes of training rows.
        """
        check_is_fitted(self)
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise InvalidParameterError(f"n must be an integer >= 1; got {n!r}.")
        chance = np.random.default_rng() if random_state is None else validation.check_seed(random_state)
        if self._has_prior:
            codes = chance.normal(size=(n, self._n_features_out))
        else:
            codes = self._code_density().draw(n, chance)
        return self.inverse_transform(codes.astype(np.float32))

    @property
    def _has_prior(self) -> bool:
        if isinstance(self.recipe_.latent, Noisy):
            return True
        names = [penalty.name for penalty in self.recipe_.penalty]
        return isinstance(self.recipe_.latent, GaussianPosterior) and "posterior_kl" in names

    def _some_codes(self, data: Tensor) -> Floats | None:
        return None if self._has_prior else self._encoded(data)

    def _code_density(self) -> CodeDensity:
        if not hasattr(self, "_density"):
            kept = getattr(self, "_kept", None)  # rows rather than codes, which move with the weights
            codes = self._codes if kept is None else self._encoded(torch.from_numpy(kept.rows))
            assert codes is not None
            self._density = CodeDensity.fit(codes, self.recipe_.seed)
        return self._density

    def interpolate(self, a: Any, b: Any, steps: int = 8) -> Floats:
        """Walk straight from the code of sample ``a`` to that of ``b``; return (steps, *shape)."""
        if not isinstance(steps, (int, np.integer)) or steps < 2:
            raise InvalidParameterError(f"steps must be an integer >= 2; got {steps!r}.")
        check_is_fitted(self)
        ends = np.stack([self._end("a", a), self._end("b", b)])
        first, last = self._transformed(ends)
        share = np.linspace(0.0, 1.0, int(steps), dtype=np.float32)[:, None]
        return self.inverse_transform(first * (1 - share) + last * share)

    def _end(self, name: str, sample: Any) -> Array:
        row = np.asarray(sample, dtype=np.float64).reshape(-1)
        if row.shape != (self.n_features_in_,):
            raise InvalidDataError(
                f"{name} must be one sample of {self.n_features_in_} values; got shape {np.shape(sample)}."
            )
        if not np.isfinite(row).all():
            raise InvalidDataError(
                f"{name} must be finite; got NaN or inf at position {np.argmin(np.isfinite(row))}."
            )
        return row

    def _encoded(self, x: Tensor) -> Floats:
        """Return the codes of samples that are in scaled units already."""
        return self._run(encode, x.flatten(1).cpu().numpy(), self.recipe_.input_shape, np.copyto)

    def diagnostics(self, X: Any) -> dict[str, Any]:
        """Return what the bottleneck does on X: see ``diabolo.estimators.diagnostics.diagnose``."""
        x = self._tensor(self._check(X, reset=False)[:10_000]).to(self._device)
        self.module_.eval()
        return diagnose(self.module_, x, self.recipe_.latent_activation)

    def diagram(self) -> Diagram:
        """Return the drawing of the architecture; ``diagram().save("picture.svg")`` writes it."""
        from diabolo.diagram import Diagram

        check_is_fitted(self)
        r = self.recipe_
        return Diagram(
            title=type(self).__name__,
            levels=tuple(self.module_.levels()),
            corruption=None if r.corruption is None else str(r.corruption),
            latent=str(r.latent) + (f", {r.latent_activation}" if r.latent_activation else ""),
            penalties=tuple(str(p) for p in r.penalty),
            loss=r.loss.describe(),
        )

    @property
    def _n_features_out(self) -> int:
        return prod(self.module_.code_shape)

    # ------------------------------------------------------------------ files
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fitted estimator to one file, whole or not at all; ``diabolo.load`` reads it.

        Raises
        ------
        ModelFileError
            Where the place cannot be written.
        """
        from diabolo.estimators.files import pack

        check_is_fitted(self)
        return write_model(path, *pack(self))

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {key: value for key, value in state.items() if key != "_steps"}
