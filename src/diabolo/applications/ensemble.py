"""What a detector is made of: autoencoders, and how what each fails to restore becomes one score.

A bottleneck that must restore everything learns the directions of largest variance and little else: on tables
it detects as PCA does. A denoising autoencoder whose code is as wide as its input learns, for noise of
standard deviation s, the way back to the data: its residual at x estimates s^2 times the gradient of the log
density of the data smoothed by that noise (Alain, Bengio 2014). Small s tells near misses apart, large s
outliers; a masking one, which never sees the value that it restores, tells how well each feature follows from
the others. Rows of many features, such as pictures, lie near far fewer dimensions than they have, and no
single value of them is strange: their codes are narrow after all. Beside the members stand remembered rows
(``memory.py``). The score takes the geometric mean of the errors, each beside what is typical of normal rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diabolo.applications.memory import Memory
from diabolo.applications.portions import by_portions
from diabolo.errors import IncompatiblePartsError, InvalidDataError, InvalidParameterError
from diabolo.estimators import Autoencoder
from diabolo.names import check_name
from diabolo.parts import GaussianNoise, MaskingNoise, Mixed
from diabolo.recipe import as_corruption

Array = NDArray[Any]
Doubles = NDArray[np.float64]

WHITENINGS = ("feature", "joint")
_NOISE = (0.2, 0.5, 1.0)  # standard deviations of the default's members, in those of the features
_HIDDEN = (0.2, 0.35, 0.5)  # shares of features hidden from its masking members
_STEPS, _STEPS_WIDE = 5000, 2000
_WIDE, _NARROW = 48, 16  # rows of more features than these get a code of so many
_MOST_EPOCHS = 150
_REMEMBERED = 20_000
_ROUNDS = 3  # times that each feature is hidden, each time with others
_RIDGE = 1e-3  # of the mean variance: what keeps features that are always restored from dividing by zero
_LEFT_OUT = 0.05  # share of the rows, those restored worst, that whitening does not look at
_ORDER = 8  # how soon errors below the typical one count alike
_TINY = 1e-9
_LEAST_SHARE = 1e-6  # a share of 0 would cost infinitely much


def default_whitening(n_features: int) -> str | None:
    """Return what the default's members divide residuals by; many features are judged by the large ones."""
    return "feature" if n_features <= _WIDE else None


def default_memory(n_features: int) -> int:
    """Return how many rows the default detector remembers; of many features distances tell little."""
    return _REMEMBERED if n_features <= _WIDE else 0


def default_members(n_rows: int, n_features: int, seed: int, loss: Mixed | None = None) -> list[Autoencoder]:
    """Return the denoising autoencoders of the default detector: three noise levels, three that mask."""
    noises = [*(GaussianNoise(std) for std in _NOISE), *(MaskingNoise(share) for share in _HIDDEN)]
    return [_denoiser(noise, n_rows, n_features, seed + k, loss) for k, noise in enumerate(noises)]


def _denoiser(noise: Any, n_rows: int, n_features: int, seed: int, loss: Mixed | None) -> Autoencoder:
    size = int(np.clip(2 ** int(log2(max(2, n_rows / 8))), 16, 128))
    if n_rows > _STEPS * size:
        size = 1024
    wide = n_features > _WIDE
    steps = _STEPS_WIDE if wide else _STEPS
    width = int(np.clip(4 * n_features, 64, 256))
    return Autoencoder(
        hidden_dims=(width, width) if isinstance(noise, MaskingNoise) else (width,),
        latent_dim=_NARROW if wide else n_features,
        activation="silu",
        corruption=noise,
        loss="squared_error" if loss is None else loss,
        optimizer="adam",
        learning_rate=0.002,
        weight_decay=0.0,
        batch_size=size,
        epochs=int(np.clip(ceil(steps * size / n_rows), 1, _MOST_EPOCHS)),
        validation_fraction=0.0,  # the best weights on rows with anomalies among them would know these best
        random_state=seed,
    )


@dataclass(frozen=True)
class Member:
    """A fitted autoencoder and what is typical of its errors on normal rows.

    Parameters
    ----------
    estimator : Autoencoder
        Fitted.
    hides : bool
        Whether a feature's error is that with which it follows from the others: features are hidden group by
        group. Else the error is that of the row restored.
    whitener : ndarray (n_features,) or (n_features, n_features)
        Residuals are multiplied by it; the latter not where features are hidden.
    typical : float
        The median error of normal rows.
    """

    estimator: Autoencoder
    hides: bool
    whitener: Doubles
    typical: float

    weight = 1.0

    @classmethod
    def of(cls, estimator: Autoencoder, rows: Array, whitening: str | None) -> Member:
        """Judge the errors of a fitted autoencoder on normal rows (n, n_features)."""
        n_features = rows.shape[1]
        hides = isinstance(estimator.recipe_.corruption, MaskingNoise)
        plain = cls(estimator, hides, np.ones(n_features), 1.0)
        whitener = plain.whitener
        if whitening == "joint" and plain.table is not None:
            raise IncompatiblePartsError(
                "whitening must be 'feature' or None for a table of mixed columns, whose costs have no "
                "covariance; got 'joint'. Choose one of these."
            )
        if whitening is not None:
            terms = by_portions(rows, plain.terms)
            errors = terms.sum(1)
            # the worst restored may be anomalies, and would have their features count for less
            kept = errors <= np.quantile(errors, 1.0 - _LEFT_OUT, method="higher")  # all of up to 20
            if whitening == "joint" and not hides:
                whitener = _zca(by_portions(rows[kept], plain.residuals))
            else:
                variance = terms[kept].mean(0)
                if plain.table is not None:  # a column counts as a whole: else its rare categories would most
                    column = np.array(plain.table.column_of())
                    variance = np.bincount(column, variance)[column]
                whitener = 1.0 / np.sqrt(variance + _RIDGE * variance.mean() + _TINY)
        judged = cls(estimator, hides, whitener, 1.0)
        errors = by_portions(rows, lambda part: judged.terms(part).sum(1))
        return cls(estimator, hides, whitener, float(np.median(errors)) + _TINY)

    @property
    def table(self) -> Mixed | None:
        """The loss of a table of mixed columns, where the rows are one."""
        loss = self.estimator.recipe_.loss
        return loss if isinstance(loss, Mixed) else None

    def residuals(self, rows: Array) -> Doubles:
        """Return x - restored x in the autoencoder's scaled units, (n, n_features)."""
        return self._residuals(rows, self._restored(rows))

    def _restored(self, rows: Array) -> Array:
        return self.estimator.reconstruct(rows).reshape(rows.shape)

    def _residuals(self, rows: Array, restored: Array) -> Doubles:
        return (np.asarray(rows, dtype=np.float64) - restored) / self.estimator._scaler.scale

    def terms(self, rows: Array) -> Doubles:
        """Return each feature's part of the error, (n, n_features); their sum is the row's error."""
        if not self.hides:
            return self._terms(rows, self._restored(rows))
        out = np.zeros(rows.shape)
        blank = self.estimator._scaler.offset
        for hidden in self._hidings(rows.shape[1]):
            seen = np.array(rows, dtype=np.float64)
            seen[:, hidden] = blank[hidden]
            out[:, hidden] += self._terms(rows, self._restored(seen))[:, hidden]
        return out / _ROUNDS

    def _terms(self, rows: Array, restored: Array) -> Doubles:
        if self.whitener.ndim == 2:
            return np.square(self._residuals(rows, restored) @ self.whitener)
        if self.table is not None:
            return _costs(self.table, rows, restored) * np.square(self.whitener)
        return np.square(self._residuals(rows, restored) * self.whitener)

    def _hidings(self, n_features: int) -> Iterator[NDArray[np.int64]]:
        """Return sets of features that are hidden together: each feature is in one set per round.

        What one column of a table became is hidden as a whole. However large a share training hid, some
        features are left to tell the others from.
        """
        noise = self.estimator.recipe_.corruption
        assert isinstance(noise, MaskingNoise)
        chance = np.random.default_rng(self.estimator.recipe_.seed)
        column = np.arange(n_features) if self.table is None else np.array(self.table.column_of())
        n = int(column[-1]) + 1
        for _ in range(_ROUNDS):
            for some in np.array_split(chance.permutation(n), min(n, max(2, round(1 / noise.fraction)))):
                yield np.flatnonzero(np.isin(column, some))


def _costs(table: Mixed, rows: Array, restored: Array) -> Doubles:
    """Return what each value of a mixed table costs, (n, n_values), as its loss has it."""
    x = np.asarray(rows, dtype=np.float64)
    share = np.clip(restored, _LEAST_SHARE, 1.0 - _LEAST_SHARE, dtype=np.float64)
    out = np.zeros(x.shape)
    for block in table.blocks():
        values = slice(block.start, block.start + block.size)
        there = 1.0 if block.missing is None else 1.0 - x[:, block.missing, None]
        if block.kind == "numeric":
            out[:, values] = np.square(x[:, values] - restored[:, values]) * there
        elif block.kind == "binary":
            out[:, values] = _cross_entropy(x[:, values], share[:, values]) * there
        else:
            out[:, values] = -x[:, values] * np.log(share[:, values]) * there
        if block.missing is not None:
            out[:, block.missing] = _cross_entropy(x[:, block.missing], share[:, block.missing])
    return out


def _cross_entropy(x: Doubles, share: Doubles) -> Doubles:
    beyond = x - np.clip(x, 0.0, 1.0)  # a value that fit never saw lies beyond 0 or 1
    x = x - beyond
    return -x * np.log(share) - (1.0 - x) * np.log(1.0 - share) + 2.0 * np.square(beyond)


def _zca(residuals: Doubles) -> Doubles:
    """Return the symmetric square root of the inverse covariance: its terms stay with the features."""
    covariance = np.cov(residuals, rowvar=False).reshape(residuals.shape[1], residuals.shape[1])
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, 0.0) + _RIDGE * max(float(values.mean()), 0.0) + _TINY
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)


def surprise(voters: Sequence[Member | Memory], rows: Array) -> Doubles:
    r"""Return how unlike the training rows each row is, (n,), > 0; 1 is typical of a normal row.

    .. math:: S(x) = \prod_k \left(\frac{1 + (e_k(x) / m_k)^8}{2}\right)^{w_k / 8}, \qquad \sum_k w_k = 1

    with the voters' errors :math:`e_k` and their medians :math:`m_k` on normal rows. Those beyond the median
    count with their size, while all that are well below count alike: what is plainer than normal rows are is
    restored better than these, and is not the more normal for it.
    """
    return _each(rows, lambda part: _surprise([m.terms(part).sum(1) for m in voters], voters), voters)


def _surprise(errors: Sequence[Doubles], voters: Sequence[Member | Memory]) -> Doubles:
    with np.errstate(divide="ignore"):
        logs = [
            (np.logaddexp(0.0, _ORDER * np.log(e / voter.typical)) - log(2.0)) / _ORDER
            for e, voter in zip(errors, voters, strict=True)
        ]
    out = np.exp(np.average(logs, axis=0, weights=[voter.weight for voter in voters]))
    return np.where(np.isnan(out), np.inf, out)  # beyond what can be computed is beyond every threshold


def shares(voters: Sequence[Member | Memory], rows: Array) -> Doubles:
    """Return each feature's part of a row's surprise, (n, n_features); they sum to it."""

    def explained(part: Array) -> Doubles:
        errors, mean = [], np.zeros(part.shape)
        for voter in voters:
            terms = voter.terms(part)
            errors.append(terms.sum(1))
            none = errors[-1] <= 0
            terms[none] = 1.0
            mean += terms * (voter.weight / np.where(none, part.shape[1], errors[-1]))[:, None]
        return mean * (_surprise(errors, voters) / sum(voter.weight for voter in voters))[:, None]

    return _each(rows, explained, voters)


def _each(rows: Array, function: Callable[[Array], Doubles], voters: Sequence[Member | Memory]) -> Doubles:
    """Apply ``function`` to some thousand rows at a time, to fewer of wide ones."""
    try:
        return by_portions(rows, function)
    except InvalidDataError:
        for voter in voters:
            if isinstance(voter, Member):
                voter.estimator.reconstruct(rows)  # says which it is of all rows, not of its part
        raise


def check_estimators(estimator: Any) -> list[Autoencoder]:
    """Return one autoencoder or several as a list."""
    several = list(estimator) if isinstance(estimator, (list, tuple)) else [estimator]
    for one in several:
        if not isinstance(one, Autoencoder):
            raise InvalidParameterError(
                f"estimator must be an autoencoder of diabolo, or a list of these; got {one!r}. "
                "Leave it out for the default."
            )
    if not several:
        raise InvalidParameterError("estimator must hold an autoencoder; got an empty list. Leave it out.")
    return several


def check_whitening(whitening: str | None, own: Sequence[Autoencoder]) -> None:
    """Raise for an unknown whitening, and for a joint one where all of one's own members hide features."""
    if whitening is None:
        return
    check_name("whitening", whitening, ("auto", *WHITENINGS))
    if whitening == "joint" and own and all(_masks(one) for one in own):
        raise IncompatiblePartsError(
            "whitening must be 'feature' or None where every member masks, and so judges feature by feature; "
            "got 'joint'. Choose one of these, or add a member that does not mask."
        )


def _masks(estimator: Autoencoder) -> bool:
    return isinstance(as_corruption(estimator.corruption), MaskingNoise)
