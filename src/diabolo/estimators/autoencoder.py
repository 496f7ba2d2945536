"""``Autoencoder``: the scikit-learn face of every kind. A kind changes defaults and nothing else."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data
from torch import Tensor

from diabolo.autoencoder import AutoencoderModule
from diabolo.errors import CollapseWarning, IncompatiblePartsError, InvalidDataError, InvalidParameterError
from diabolo.estimators import validation
from diabolo.estimators.diagnostics import diagnose
from diabolo.estimators.generation import CodeDensity
from diabolo.estimators.scaling import Scaler, Statistics, check_targets, choose_scaling
from diabolo.names import check_name
from diabolo.objective import LOSS
from diabolo.parameters import Parameters, parameters_section
from diabolo.parts import GaussianPosterior, Noisy, activation, as_part
from diabolo.parts.losses import Loss
from diabolo.parts.penalties import posterior_divergence
from diabolo.persistence import write_model
from diabolo.recipe import DEVICES, SCALINGS, Recipe, resolve
from diabolo.training import History, Progress, train
from diabolo.training.machine import choose_device, threads_for
from diabolo.training.plans import continue_training

if TYPE_CHECKING:
    from diabolo.diagram import Diagram

Array = NDArray[Any]
Floats = NDArray[np.float32]

_VALUES_PER_BATCH = 2_000_000  # of the widest end, in inference: 8 MB, about the size of a cache
_HELD_OUT_MOST = 10_000  # rows that choose the best weights: more would only cost time


@dataclass(kw_only=True, eq=False, repr=False)
class Autoencoder(Parameters, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    r"""An autoencoder with all six choices open.

    Minimises, over the weights of encoder and decoder,

    .. math:: \mathbb{E}_{\tilde x, z}\; L(x, g(z)) + \sum_k w_k P_k,
              \qquad z \sim q(z \mid f(\tilde x))

    where :math:`\tilde x` is the corrupted input. With penalties it is the regularized autoencoder;
    codes wider than the input are allowed. Rows are (n_samples, n_features); images (n, height, width)
    or (n, channels, height, width). What goes in and what comes out have the same units.

    Attributes
    ----------
    module_ : AutoencoderModule
        The trained network, in scaled units.
    recipe_ : Recipe
        Every setting of the run, resolved.
    history_ : History
        One row per epoch.
    sample_shape_ : tuple of int
    n_features_in_, n_parameters_ : int
    feature_names_in_ : ndarray of str
        Where X was a frame.
    """

    _default_depth: ClassVar[int | None] = 1
    _needs: ClassVar[tuple[str, ...]] = ()
    _undercomplete: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._default_depth = cls.__dict__.get("depth", cls._default_depth)
        if cls.__doc__ and "\nParameters\n" not in cls.__doc__:
            cls.__doc__ += "\n" + parameters_section()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    # ------------------------------------------------------------------ fitting
    def fit(self, X: Any, y: Any = None, *, progress: Progress | None = None) -> Self:
        """Learn to reconstruct X.

        Parameters
        ----------
        X : array, frame or sparse matrix (n_samples, n_features), or images
        y : ignored
        progress : callable(row, total_epochs), optional
            Called after every epoch with the history's new row.

        Raises
        ------
        InvalidDataError, InvalidParameterError, IncompatiblePartsError, DivergedError
        KeyboardInterrupt
            On Ctrl-C, after the estimator was fitted with the best weights so far.
        """
        rows = self._check(X, reset=True)
        generator = self._prepare(rows)
        recipe = self.recipe_
        data = torch.from_numpy(self._scaler.scaled(rows)).reshape(len(rows), *recipe.input_shape)
        if not bool(torch.isfinite(data).all()):
            raise InvalidDataError(
                "X must stay finite in single precision; got values beyond 3.4e38. Rescale X."
            )
        order = torch.randperm(len(data), generator=generator)
        n_held_out = min(int(recipe.validation_fraction * len(data)), _HELD_OUT_MOST)
        held_out = data[order[:n_held_out]].to(self._device) if n_held_out else None
        data = data[order[n_held_out:]].to(self._device)
        self.history_, interrupted = train(
            self.module_, recipe, data, held_out, self._on_device(generator), self._reporting(progress)
        )
        self._codes = self._some_codes(data)
        self._warn_if_collapsed(data if held_out is None else held_out)
        if interrupted:
            raise KeyboardInterrupt
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Go once through X, continuing from the weights there are.

        The first call fixes sizes and scaling by its rows; the learning rate is constant and no row
        is held out.
        """
        first = not hasattr(self, "module_")
        rows = self._check(X, reset=first)
        if first:
            self._prepare(rows)
            self.history_ = History()
        data = torch.from_numpy(self._scaler.scaled(rows)).reshape(len(rows), *self.recipe_.input_shape)
        data = data.to(self._device)
        self._steps = continue_training(
            self.module_, self.recipe_, data, self.history_, getattr(self, "_steps", None)
        )
        self._codes = self._some_codes(data)
        return self

    def _prepare(self, rows: Array) -> torch.Generator:
        """Resolve the recipe, fit the scaling and build the module; return the generator of the run."""
        for name in self._needs:
            if (
                getattr(self, name) in (None, "none", "deterministic", "end_to_end")
                or getattr(self, name) == ()
            ):
                raise InvalidParameterError(
                    f"{name} must be set for {type(self).__name__}; got {getattr(self, name)!r}. Use Autoencoder."
                )
        if self.scaling is not None:
            check_name("scaling", self.scaling, SCALINGS)
        check_name("device", self.device, DEVICES)
        statistics = Statistics.of(rows)
        if not (statistics.high > statistics.low).any():
            raise InvalidDataError(
                "X must vary; got the same value in every row of every column. Check the source."
            )
        loss = as_part(Loss, "loss", self.loss)  # type: ignore[type-abstract]
        pixels = len(self.sample_shape_) > 1 or rows.dtype == np.uint8
        scaling = choose_scaling(self.scaling, loss, rows, statistics, pixels=pixels)
        n_training = len(rows) - min(int(self.validation_fraction * len(rows)), _HELD_OUT_MOST)
        recipe = resolve(
            self,
            shape=self.sample_shape_,
            n_rows=max(n_training, 1),
            scaling=scaling,
            seed=self._seed(),
            default_depth=self._default_depth,
        )
        self._scaler = Scaler.fit(scaling, statistics)
        if loss.link != "linear":
            check_targets(self._scaler, statistics, loss.low, loss.high, f"loss={loss.name!r}")
        elif recipe.output_activation is not None:
            reach = activation(recipe.output_activation)
            check_targets(
                self._scaler,
                statistics,
                reach.low,
                reach.high,
                f"output_activation={recipe.output_activation!r}",
            )
        generator = torch.Generator().manual_seed(recipe.seed)
        module = recipe.build(generator)
        code_size = prod(module.code_shape)
        if self._undercomplete and code_size >= rows.shape[1]:
            raise IncompatiblePartsError(
                f"the code of {type(self).__name__} must be narrower than the input; got {code_size} units for "
                f"{rows.shape[1]} feature(s). Lower latent_dim, or use Autoencoder."
            )
        mean = ((statistics.mean - self._scaler.offset) / self._scaler.scale).astype(np.float32)
        module.start_at(torch.from_numpy(mean))
        self.recipe_ = recipe
        self.module_ = module.to(self._device)
        self.n_parameters_ = sum(w.numel() for w in module.parameters())
        self._mean = statistics.mean
        for name in ("_steps", "_density"):
            if hasattr(self, name):
                delattr(self, name)
        return generator

    def _seed(self) -> int:
        if self.random_state is None:  # fresh entropy: the global generator is neither read nor moved
            return int(np.random.SeedSequence().generate_state(1)[0])
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _on_device(self, generator: torch.Generator) -> torch.Generator:
        if self._device.type == "cpu":
            return generator
        return torch.Generator(self._device).manual_seed(self.recipe_.seed)

    def _reporting(self, progress: Progress | None) -> Progress | None:
        if not self.verbose:
            return progress

        def report(row: dict[str, Any], total: int) -> None:
            shown = ", ".join(f"{k} {row[k]:.5g}" for k in ("training_total", "validation_total") if k in row)
            os.write(1, f"{row['stage']} epoch {row['epoch']}: {shown}\n".encode())
            if progress is not None:
                progress(row, total)

        return report

    def _warn_if_collapsed(self, x: Tensor) -> None:
        with threads_for(0.0):
            found = diagnose(self.module_, x[:1000], self.recipe_.latent_activation)
        if found["kl_per_unit"] is not None and found["active_units"] == 0:
            warnings.warn(
                "the posterior collapsed: no unit of the code carries information. Lower beta of the penalty "
                "posterior_kl, set its warmup or free_bits, or use loss='gaussian'.",
                CollapseWarning,
                stacklevel=3,
            )

    @property
    def _device(self) -> torch.device:
        return choose_device(self.device)

    # ------------------------------------------------------------------ what comes in
    def _check(self, X: Any, *, reset: bool) -> Array:
        """Return X as numeric rows (n_samples, n_features)."""
        if not reset:
            check_is_fitted(self)
        shape: tuple[int, ...] | None = None
        if not hasattr(X, "columns") and not validation.is_sparse(X) and np.ndim(X) > 2:
            X = np.asarray(X)
            shape = X.shape[1:]
            if not reset and shape != self.sample_shape_:
                raise InvalidDataError(
                    f"samples must have the shape {self.sample_shape_} they had in fit; got {shape}. Resize them."
                )
            X = X.reshape(len(X), -1)
        validation.check_columns(X)
        if isinstance(X, np.ndarray):
            validation.check_cells(X)
        rows: Array = validate_data(
            self,
            X,
            reset=reset,
            accept_sparse=["csr", "csc"],
            dtype="numeric",
            ensure_all_finite=False,
            ensure_min_samples=2 if reset else 1,
        )
        rows = validation.dense(rows)
        validation.check_values(rows, getattr(self, "feature_names_in_", None))
        if reset:
            self.sample_shape_ = self._shape_of(rows, shape)
        return rows

    def _shape_of(self, rows: Array, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        if self.input_shape is None:
            return shape or (rows.shape[1],)
        wanted = tuple(int(extent) for extent in self.input_shape)
        if prod(wanted) != rows.shape[1] or (shape is not None and shape != wanted):
            raise InvalidParameterError(
                f"input_shape must hold as many values as a sample has, {shape or rows.shape[1]}; got {wanted}."
            )
        return wanted

    def _scaled(self, X: Any) -> Tensor:
        rows = self._check(X, reset=False)
        return torch.from_numpy(self._scaler.scaled(rows)).reshape(len(rows), *self.recipe_.input_shape)

    def _batches(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply ``function`` to batches whose widest layer fits the cache; the result is on the CPU."""
        widest = max(level.size for level in self.module_.levels())
        size = max(32, min(8192, _VALUES_PER_BATCH // widest))
        self.module_.eval()
        with torch.inference_mode(), threads_for(2.0 * self.n_parameters_ * min(size, len(x))):
            return torch.cat([function(batch.to(self._device)).cpu() for batch in torch.split(x, size)])

    def _unscaled(self, rows: Tensor) -> Floats:
        return self._scaler.unscaled(rows.flatten(1).numpy())

    # ------------------------------------------------------------------ what goes out
    def transform(self, X: Any) -> Floats:
        """Map X to codes, (n_samples, code_size): the deterministic code, or the posterior's mean."""
        codes: Floats = self._batches(lambda x: self.module_.encode(x).flatten(1), self._scaled(X)).numpy()
        return codes

    def inverse_transform(self, Z: Any) -> Floats:
        """Map codes (n_samples, code_size) back to samples of the shape and units of fit's X."""
        check_is_fitted(self)
        codes = np.asarray(Z, dtype=np.float32)
        size = self._n_features_out
        if codes.ndim != 2 or codes.shape[1] != size:
            raise InvalidDataError(f"codes must have the shape (n_samples, {size}); got {codes.shape}.")
        if not np.isfinite(codes).all():
            raise InvalidDataError("codes must be finite; got NaN or inf.")
        z = torch.tensor(codes).reshape(-1, *self.module_.code_shape)
        return self._unscaled(self._batches(self.module_.decode, z)).reshape(len(codes), *self.sample_shape_)

    def _reconstructed(self, X: Any) -> tuple[Array, Floats]:
        rows = self._check(X, reset=False)
        x = torch.from_numpy(self._scaler.scaled(rows)).reshape(len(rows), *self.recipe_.input_shape)
        return rows, self._unscaled(self._batches(lambda b: self.module_.decode(self.module_.encode(b)), x))

    def reconstruct(self, X: Any) -> Floats:
        """Return X as the network sees it, in X's shape and units, without any chance involved."""
        rows, out = self._reconstructed(X)
        return out.reshape(np.shape(X)) if np.ndim(X) > 2 else out

    def reconstruction_error(self, X: Any) -> Floats:
        """Return each sample's squared error, summed over its values, in X's units: (n_samples,)."""
        rows, out = self._reconstructed(X)
        return np.square(rows - out, dtype=np.float64).sum(1).astype(np.float32)

    def score_samples(self, X: Any) -> Floats:
        """Return how normal each sample is, (n_samples,), higher = more normal.

        The negative loss in scaled units, summed over a sample's values; with a Gaussian posterior
        the divergence from the prior is taken off too (with loss="gaussian" that is the bound on the
        log-likelihood in nats, at the posterior's mean).
        """

        def score(x: Tensor) -> Tensor:
            passed = self.module_(x)
            cost: Tensor = self.module_.loss(passed.raw, passed.target)
            if passed.code.log_variance is not None:
                cost = cost + posterior_divergence(passed.code.mean, passed.code.log_variance).flatten(1).sum(
                    1
                )
            return -cost

        scores: Floats = self._batches(score, self._scaled(X)).numpy()
        return scores

    def score(self, X: Any, y: Any = None) -> float:
        """Return 1 - error / error of the mean predictor, in scaled units: 1 = perfect, 0 = the mean."""
        rows, out = self._reconstructed(X)
        residual = (rows - out) / self._scaler.scale
        spread = (rows - self._mean) / self._scaler.scale
        total = float(np.square(spread).sum())
        return 1.0 - float(np.square(residual).sum()) / total if total else float("nan")

    def sample(self, n: int = 1, *, random_state: int | np.random.RandomState | None = None) -> Floats:
        """Draw n new samples, of the shape and units of fit's X.

        Variational and stochastic codes are drawn from the standard normal distribution they were
        trained towards; other codes from a Gaussian mixture fitted on codes of training rows.
        """
        check_is_fitted(self)
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise InvalidParameterError(f"n must be an integer >= 1; got {n!r}.")
        chance = np.random.default_rng() if random_state is None else check_random_state(random_state)
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

    def _some_codes(self, data: Tensor, most: int = 4096) -> Floats | None:
        if self._has_prior:
            return None
        codes: Floats = self._batches(lambda x: self.module_.encode(x).flatten(1), data[:most]).numpy()
        return codes

    def _code_density(self) -> CodeDensity:
        if not hasattr(self, "_density"):
            assert self._codes is not None
            self._density = CodeDensity.fit(self._codes, self.recipe_.seed)
        return self._density

    def interpolate(self, a: Any, b: Any, steps: int = 8) -> Floats:
        """Walk straight from the code of sample ``a`` to that of ``b``; return (steps, *shape)."""
        if not isinstance(steps, (int, np.integer)) or steps < 2:
            raise InvalidParameterError(f"steps must be an integer >= 2; got {steps!r}.")
        check_is_fitted(self)
        ends = np.stack([np.asarray(a).reshape(-1), np.asarray(b).reshape(-1)])
        if len(self.sample_shape_) > 1:
            ends = ends.reshape(2, *self.sample_shape_)
        first, last = self._codes_of(ends)
        share = np.linspace(0.0, 1.0, int(steps), dtype=np.float32)[:, None]
        return self.inverse_transform(first * (1 - share) + last * share)

    def _codes_of(self, X: Array) -> Floats:
        x = torch.from_numpy(self._scaler.scaled(X.reshape(len(X), -1).astype(np.float64)))
        codes: Floats = self._batches(
            lambda b: self.module_.encode(b).flatten(1), x.reshape(len(X), *self.recipe_.input_shape)
        ).numpy()
        return codes

    def diagnostics(self, X: Any) -> dict[str, Any]:
        """Return what the bottleneck does on X: see ``diabolo.estimators.diagnostics.diagnose``."""
        x = self._scaled(X)[:10_000].to(self._device)
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


Autoencoder.__doc__ = (Autoencoder.__doc__ or "") + "\n" + parameters_section()
PARAMETERS: tuple[str, ...] = tuple(f.name for f in fields(Autoencoder))
