"""``Autoencoder``: the scikit-learn face of every kind. A kind changes defaults and nothing else."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from math import prod
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diabolo.data.sources import Source
from diabolo.errors import CollapseWarning, IncompatiblePartsError, InvalidDataError, InvalidParameterError
from diabolo.estimators.continuing import followed, settings
from diabolo.estimators.diagnostics import diagnose
from diabolo.estimators.fitted import Array, Fitted
from diabolo.estimators.generation import Reservoir
from diabolo.estimators.scaling import Scaler, Statistics, check_targets, choose_scaling, share_bounds
from diabolo.estimators.survey import SAMPLE, Survey, sample_size
from diabolo.estimators.validation import check_seed
from diabolo.interruption import interruptible, stoppable
from diabolo.names import check_name
from diabolo.parameters import Parameters, parameters_section
from diabolo.parts import GaussianPosterior, Noisy, activation, as_part, check_range
from diabolo.parts.losses import Clip, Loss
from diabolo.recipe import DEVICES, SCALINGS, resolve
from diabolo.training import History, Progress, train
from diabolo.training.checkpoint import Checkpoint
from diabolo.training.feed import Feed, HostFeed, MemoryFeed, StreamFeed
from diabolo.training.machine import has_room, threads_for
from diabolo.training.plans import continue_training
from diabolo.training.workers import agreed

_NOTHING = (None, "none", "deterministic", "end_to_end", ())  # values by which a kind would lose its name
_HELD_OUT_MOST = 10_000  # rows that choose the best weights: more would only cost time
_AT_ONCE = 4096  # rows gathered and scaled at a time


@dataclass(kw_only=True, eq=False, repr=False)
class Autoencoder(Parameters, Fitted):
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

    # ------------------------------------------------------------------ fitting
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        progress: Progress | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int = 1,
        resume: bool = False,
    ) -> Self:
        """Learn to reconstruct X.

        A fit that was stopped, by whatever, and is resumed with the same data and settings ends as if it
        had never been stopped: same weights, same history but for the seconds.

        Parameters
        ----------
        X : array, frame or sparse matrix (n_samples, n_features), or images; or a Source
            A ``diabolo.data.Source`` is read once for its statistics and once for each epoch, with a part of
            it in memory; rows are then shuffled within pools of about 64 MB, which come in random order.
        y : ignored
        progress : callable(row, total_epochs), optional
            Called after every epoch with the history's new row. Where it has a method ``within(share)``,
            that is called twice a second with the share of the epoch that is done.
        checkpoint : str or path, optional
            The folder that keeps where the training stands, in one file. While fitting, SIGTERM then
            stops as Ctrl-C does, unless the process handles it.
        every : int >= 1, default=1
            Epochs from one checkpoint to the next; an interruption writes one too.
        resume : bool, default=False
            Go on from the checkpoint in that folder, or begin where there is none. One of a fit that
            came to its end gives the same result again without training.

        Raises
        ------
        InvalidDataError, InvalidParameterError, IncompatiblePartsError, DivergedError
        CheckpointError
            For a folder that cannot be used, or a checkpoint that is damaged or of another run. A
            checkpoint that cannot be written later on is a CheckpointWarning.
        KeyboardInterrupt
            On Ctrl-C, after the estimator was fitted with the best weights so far. Further presses within
            two seconds count as the first; one after these stops at once, and the weights are lost.
        """
        kept = self._checkpoint(checkpoint, every, resume)
        resumed = None if kept is None else kept.seed
        prepared = self._stream(X, resumed) if isinstance(X, Source) else self._rows(X, resumed)
        generator, data, held_out = prepared
        terminable = nullcontext() if kept is None else stoppable()
        with self._whole_or_not_at_all(), interruptible(), terminable:
            self.history_, interrupted = train(
                self.module_,
                self.recipe_,
                data,
                held_out,
                self._on_device(generator),
                self._reporting(progress),
                kept,
            )
            self._codes = self._some_codes(data.head(SAMPLE))
        self._warn_if_collapsed(data.head(SAMPLE) if held_out is None else held_out)
        if interrupted:
            raise KeyboardInterrupt
        return self

    def _rows(self, X: Any, resumed: int | None) -> tuple[torch.Generator, Feed, Tensor | None]:
        """Prepare for training on rows in memory: the run's generator, what to train on and to choose by."""
        rows = self._check(X, reset=True)
        self._check_settings()
        generator = self._prepare(Statistics.of(rows), len(rows), rows.dtype == np.uint8, self._seed(resumed))
        order = torch.randperm(len(rows), generator=generator).numpy()
        n_held_out = self._n_held_out(len(rows))
        held_out = self._gathered(rows, order[:n_held_out]).to(self._device) if n_held_out else None
        data, device = self._gathered(rows, order[n_held_out:]), self._device
        feed = MemoryFeed(data.to(device)) if has_room(device, data.nbytes) else HostFeed(data, device)
        return generator, feed, held_out

    def _gathered(self, rows: Array, order: NDArray[np.int64]) -> Tensor:
        """Return the rows with these numbers in scaled units, without a copy of all in between."""
        out = np.empty((len(order), rows.shape[1]), dtype=np.float32)
        for start in range(0, len(order), _AT_ONCE):
            numbers = order[start : start + _AT_ONCE]
            self._scale(rows.take(numbers, axis=0), out[start : start + len(numbers)], numbers)
        return torch.from_numpy(out).reshape(len(out), *self.recipe_.input_shape)

    def _stream(self, X: Source, resumed: int | None) -> tuple[torch.Generator, Feed, Tensor | None]:
        """Prepare for training on rows that stream by; reads them once."""
        self._take_shape(X)
        self._check_settings()
        seed = self._seed(resumed)
        survey = Survey(X, getattr(self, "feature_names_in_", None), self._n_held_out(len(X)), seed)
        generator = self._prepare(survey.statistics, survey.n, survey.pixels, seed)
        held_out = self._tensor(survey.held_out)
        return generator, self._feed(X, survey), held_out.to(self._device) if len(held_out) else None

    def _feed(self, X: Source, survey: Survey) -> StreamFeed:
        return StreamFeed(
            X,
            survey.n - len(survey.held_out),
            lambda rows, numbers: self._tensor(rows.reshape(len(rows), -1), numbers),
            survey.held_out_numbers,
            self._tensor(survey.sample),
            self._device,
        )

    def _n_held_out(self, n: int) -> int:
        """Return how many of n rows choose the best weights."""
        return min(int(self.validation_fraction * n), _HELD_OUT_MOST)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Go once through X, continuing from the weights there are.

        The first call fixes sizes and scaling by its rows; the learning rate is constant and no row
        is held out. Of the parameters learning_rate, weight_decay, clip_norm and batch_size may change from
        call to call. ``sample`` then draws by the codes of up to 4096 rows, any row since the first call, or
        since ``fit`` or ``load``, being as likely among them as any other.

        Parameters
        ----------
        X : array, frame or sparse matrix (n_samples, n_features), or images; or a Source
            A ``diabolo.data.Source`` is read once for its range and once to learn from.
        y : ignored

        Raises
        ------
        InvalidDataError, InvalidParameterError, IncompatiblePartsError, DivergedError
            InvalidParameterError also where another parameter was changed since the first call.
        """
        first = not hasattr(self, "module_")
        seed = self._seed() if first else self.recipe_.seed
        seen: Survey | None = None
        if isinstance(X, Source):
            self._take_shape(X) if first else self._check_source(X)
            seen = Survey(X, getattr(self, "feature_names_in_", None), 0, seed, 2 if first else 1)
            statistics, n, bytes_ = seen.statistics, seen.n, seen.pixels
        else:
            rows = self._check(X, reset=first)
            statistics, n, bytes_ = Statistics.of(rows), len(rows), rows.dtype == np.uint8
        if first:
            self._check_settings()
            self._prepare(statistics, n, bytes_, seed)
            self.history_ = History()
        else:
            self._check_range(statistics)
            self.recipe_ = followed(self, self._given, self.recipe_, n, self._default_depth)
            self._given = settings(self)
            self._reach(statistics)
        data = self._tensor(rows if seen is None else seen.sample)
        feed = MemoryFeed(data.to(self._device)) if seen is None else self._feed(X, seen)
        self._check_batch(min(self.recipe_.batch_size, len(feed)))
        with self._whole_or_not_at_all() if first else nullcontext():
            self._steps = continue_training(
                self.module_, self.recipe_, feed, self.history_, getattr(self, "_steps", None)
            )
        self._forget("_density")
        if not self._has_prior:
            if not hasattr(self, "_kept"):
                self._kept = Reservoir(sample_size(self.n_features_in_), seed)
            self._kept.add(data.numpy(), n)
        return self

    @contextmanager
    def _whole_or_not_at_all(self) -> Iterator[None]:
        """Count as not fitted where training fails: its weights are of no use."""
        try:
            yield
        except BaseException:
            self._forget("module_")
            raise

    def _forget(self, *names: str) -> None:
        for name in names:
            if hasattr(self, name):
                delattr(self, name)

    def _checkpoint(
        self, folder: str | os.PathLike[str] | None, every: int, resume: bool
    ) -> Checkpoint | None:
        if folder is not None:
            kept = Checkpoint(folder, every, resume=resume)
            if self.verbose and resume:
                sys.stdout.write(f"{kept.epochs_done} epochs lie behind, by the checkpoint in {folder}\n")
            return kept
        for name, value, default in (("every", every, 1), ("resume", resume, False)):
            if value != default:
                raise InvalidParameterError(
                    f"{name} must be left out without a checkpoint; got {value!r}. "
                    "Give the folder as checkpoint."
                )
        return None

    def _check_settings(self) -> None:
        """Check what can be checked before the data are looked at; a fit begins here."""
        self._forget("module_", "_steps", "_density", "_kept")
        for name in self._needs:
            value = getattr(self, name)
            if getattr(value, "name", value) in _NOTHING:
                raise InvalidParameterError(
                    f"{name} must be set for {type(self).__name__}; got {value!r}. Use Autoencoder."
                )
        if self.scaling is not None:
            check_name("scaling", self.scaling, SCALINGS)
        check_name("device", self.device, DEVICES)
        check_range("validation_fraction", self.validation_fraction, low=0, high=1, open_high=True)

    def _prepare(self, statistics: Statistics, n_rows: int, bytes_: bool, seed: int) -> torch.Generator:
        """Resolve the recipe, fit the scaling and build the module; return the generator of the run."""
        if not (statistics.high > statistics.low).any():
            raise InvalidDataError(
                "X must vary; got the same value in every row of every column. Check the source."
            )
        loss = as_part(Loss, "loss", self.loss)  # type: ignore[type-abstract]
        pixels = len(self.sample_shape_) > 1 or bytes_
        shared = share_bounds(statistics, pixels=pixels)
        scaling = choose_scaling(self.scaling, loss, self.output_activation, shared=shared)
        recipe = resolve(
            self,
            shape=self.sample_shape_,
            n_rows=max(n_rows - self._n_held_out(n_rows), 1),
            scaling=scaling,
            bounded=shared,
            seed=seed,
            default_depth=self._default_depth,
        )
        self.recipe_ = recipe
        self._scaler = Scaler.fit(scaling, statistics)
        self._check_range(statistics)
        self._check_batch(recipe.batch_size)
        generator = torch.Generator().manual_seed(recipe.seed)
        module = recipe.build(generator)
        code_size = prod(module.code_shape)
        if self._undercomplete and code_size >= len(statistics.mean):
            raise IncompatiblePartsError(
                f"the code of {type(self).__name__} must be narrower than the input; got {code_size} units "
                f"for {len(statistics.mean)} feature(s). Lower latent_dim, or use Autoencoder."
            )
        mean = ((statistics.mean - self._scaler.offset) / self._scaler.scale).astype(np.float32)
        module.start_at(torch.from_numpy(mean))
        self.module_ = module.to(self._device)
        self._reach(statistics, shared)
        self._given = settings(self)
        self.n_parameters_ = sum(w.numel() for w in module.parameters())
        self._mean = statistics.mean
        return generator

    def _check_range(self, statistics: Statistics) -> None:
        """Raise where the scaled rows leave what the loss is defined for or the output can reach."""
        loss, output = self.recipe_.loss, self.recipe_.output_activation
        if loss.link != "linear":
            check_targets(self._scaler, statistics, *loss.bounds(), f"loss={loss.name!r}")
        elif output not in (None, Clip.NAME):
            reach = activation(output)
            check_targets(self._scaler, statistics, reach.low, reach.high, f"output_activation={output!r}")

    def _reach(self, statistics: Statistics, shared: bool | None = None) -> None:
        """Let an output that is clipped reach these rows; None: by bounds that are shared if its own are."""
        output = getattr(self.module_.loss, "output", None)
        if not isinstance(output, Clip):
            return
        if shared is None:
            shared = self._scaler.share(*(b.cpu().numpy().reshape(-1) for b in (output.low, output.high)))
        bounds = self._scaler.bounds(statistics, shared=shared)
        self.module_.reach(*(torch.from_numpy(b).reshape(self.sample_shape_) for b in bounds))

    def _check_batch(self, n_rows: int) -> None:
        """Raise for a single row where something is normalised over the batch."""
        normalised = isinstance(self.recipe_.latent, Noisy) or (
            getattr(self.recipe_.architecture, "norm", None) == "batch"
        )
        if n_rows == 1 and normalised:
            raise IncompatiblePartsError(
                "a batch must have at least 2 rows where it is normalised (norm='batch', latent='noisy'); "
                "got 1. Raise batch_size, or give more rows."
            )

    def _seed(self, resumed: int | None = None) -> int:
        """Return the run's seed; without one of its own a run that is resumed keeps that of before."""
        if self.random_state is None and resumed is not None:
            return resumed
        if self.random_state is None:  # fresh entropy: the global generator is neither read nor moved
            return agreed(int(np.random.SeedSequence().generate_state(1)[0]))
        return int(check_seed(self.random_state).randint(np.iinfo(np.int32).max))

    def _on_device(self, generator: torch.Generator) -> torch.Generator:
        if self._device.type == "cpu":
            return generator
        return torch.Generator(self._device).manual_seed(self.recipe_.seed)

    def _reporting(self, progress: Progress | None) -> Progress | None:
        if not self.verbose:
            return progress

        def report(row: dict[str, Any], total: int) -> None:
            shown = ", ".join(f"{k} {row[k]:.5g}" for k in ("training_total", "validation_total") if k in row)
            sys.stdout.write(f"{row['stage']} epoch {row['epoch']}: {shown}\n")
            if progress is not None:
                progress(row, total)

        report.within = getattr(progress, "within", None)  # type: ignore[attr-defined]
        return report

    def _warn_if_collapsed(self, x: Tensor) -> None:
        if not isinstance(self.recipe_.latent, GaussianPosterior):
            return
        with threads_for(0.0):
            found = diagnose(self.module_, x[:1000], self.recipe_.latent_activation)
        if found["active_units"] == 0:
            warnings.warn(
                "the posterior collapsed: no unit of the code carries information. Lower beta of the penalty "
                "posterior_kl, set its warmup or free_bits, or use loss='gaussian'.",
                CollapseWarning,
                stacklevel=3,
            )


Autoencoder.__doc__ = (Autoencoder.__doc__ or "") + "\n" + parameters_section()
PARAMETERS: tuple[str, ...] = tuple(f.name for f in fields(Autoencoder))
