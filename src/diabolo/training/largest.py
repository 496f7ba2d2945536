r"""The k largest of many units for each row: of values, or of a product that never lies in memory.

Half precision decides which units come into question. With x and w the row's and the unit's numbers,
u = 2^-8 the rounding of bfloat16 and a tilde on what is rounded to it,

.. math:: |x \cdot w - \tilde x \cdot \tilde w| \le
          \|x - \tilde x\| \|\tilde w\| + \|x\| \|w - \tilde w\| =: S,

so that a unit whose product in half precision lies more than 2 S (and the rounding of the result) below the
k-th largest cannot be among the k largest. What is left, some 50 of 8192 units where 32 are kept, is computed
in single precision. The result is that of the whole product in single precision, at two thirds of the time.

Shapes: n samples, m units, k of them wanted, d numbers per sample and unit.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diabolo.training.machine import linear, multiplies_half

_CHUNK_VALUES = 8_388_608  # values of the product at a time: 32 MB in float32, and enough rows for two cores
_GROUP = 16  # units among which the search for the largest looks at the greatest only
_ROUNDING = 2.0**-8  # of a number that is kept in bfloat16, relative to it
_SURELY = 1.02  # for the rounding of the bounds themselves
# where half precision pays: a unit that comes into question costs as much as some 30 in the product
_UNITS_PER_KEPT = 128
_UNITS_PER_CANDIDATE = 32
_LEAST_WORK = 2**31  # n * m * d
_FIRST = 128  # rows that tell whether it pays


def largest(h: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest values of each row of h (n, m) and their places, (n, k) each, in any order.

    The k largest lie in the k groups with the greatest maxima, which leaves torch's ``topk``, slow where
    rows are long, nothing to do. Exact; which of equal values is taken is as open as in ``topk``.
    """
    n, m = h.shape
    groups = m // _GROUP
    if m % _GROUP or groups < 2 * k:
        values, places = h.topk(k, dim=1, sorted=False)
        return values, places
    # a group is one of every ``groups`` units: maxima over strides are faster than over neighbours
    grouped = h.view(n, _GROUP, groups)
    chosen = _places_of_largest(grouped.amax(1), k)
    values = grouped.gather(2, chosen[:, None, :].expand(-1, _GROUP, -1)).view(n, -1)
    among = _places_of_largest(values, k)
    places = chosen.gather(1, among % k).add_(among.div(k, rounding_mode="floor"), alpha=groups)
    return values.gather(1, among), places


def largest_products(x: Tensor, weight: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of each row of ``x @ weight.T + bias``, and their places, as ``largest`` does.

    x is (n, d), weight (m, d), bias (m,). Where too many units come into question, which the first rows
    tell, the whole product is made.
    """
    units = len(weight)
    shortlist = None
    if (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and units % _GROUP == 0
        and units >= _UNITS_PER_KEPT * k
        and len(x) * weight.numel() >= _LEAST_WORK
        and multiplies_half(x.device)
    ):
        shortlist = _Shortlist(weight, bias, k)
    found: list[tuple[Tensor, Tensor]] = []
    first = 0 if shortlist is None else _FIRST  # by these alone, so that the same rows are treated alike
    parts = [x[:first]] if first else []
    if len(x) > first or not first:
        parts += torch.split(x[first:], max(1, _CHUNK_VALUES // units))
    for part in parts:
        pair = None if shortlist is None else shortlist(part)
        if pair is None:
            pair = largest(linear(part, weight, bias), k)
            shortlist = shortlist if found else None
        found.append(pair)
    values, places = zip(*found, strict=True)
    return torch.cat(values), torch.cat(places)


class _Shortlist:
    """The search by half precision, for one weight (m, d) and bias (m,)."""

    def __init__(self, weight: Tensor, bias: Tensor, k: int) -> None:
        self.weight, self.bias, self.k = weight, bias, k
        self._weight, self._bias = weight.bfloat16(), bias.bfloat16()
        self._off = float(_lengths(weight - self._weight).max())
        self._length = float(_lengths(weight).max()) + self._off  # at least that of the rounded ones
        self._bias_off = _ROUNDING * float(bias.abs().max())

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the k largest for x (n, d) and their places; None where too many come into question."""
        n, units, k = len(x), len(self.weight), self.k
        rough, error = self._rough(x)
        grouped, groups = rough.view(n, _GROUP, -1), units // _GROUP
        greatest = grouped.amax(1).float().numpy()
        kth = np.sort(greatest, axis=1)[:, -k]  # of the groups, so at most that of the units
        with np.errstate(over="ignore", invalid="ignore"):
            bound = kth - 2.0 * _SURELY * (error.numpy() + _ROUNDING * np.abs(kth))
        if not np.isfinite(bound).all():
            return None
        above = greatest >= bound[:, None]
        undecided = above.sum(1) > groups // 2  # a row of zeros, to which all units are alike
        above[undecided] = False
        row, group = _divided(np.flatnonzero(above), groups)
        most = n * units // _UNITS_PER_CANDIDATE
        if len(row) + units * undecided.sum() > most:
            return None
        near = grouped[row, :, group].float().numpy()
        pair, member = _divided(np.flatnonzero(near >= bound[row.numpy(), None]), _GROUP)
        row, unit = row[pair], group[pair].add_(member, alpha=groups)
        if len(row) > most:
            return None
        values, places = self._exact(x, row, unit)
        if undecided.any():
            rest = torch.from_numpy(undecided)
            values[rest], places[rest] = largest(linear(x[rest], self.weight, self.bias), k)
        return values, places

    def _exact(self, x: Tensor, row: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Return the k largest of each row, and their places, among the units (p,) of the rows (p,)."""
        n, counts = len(x), torch.bincount(row, minlength=len(x))
        starts, width = counts.cumsum(0).sub_(counts), max(self.k, int(counts.max()))
        at = torch.arange(len(row)).sub_(starts[row]).add_(row, alpha=width)
        order = order_of(unit, len(self.weight))
        row, unit, at = row[order], unit[order], at[order]
        products = row_products(x, self.weight, row, unit).add_(self.bias[unit])
        table = x.new_full((n * width,), -torch.inf).index_copy_(0, at, products)
        among = _places_of_largest(table.view(n, width), self.k)
        among += torch.arange(0, n * width, width)[:, None]
        places = torch.zeros(n * width, dtype=torch.int64).index_copy_(0, at, unit)
        return table[among], places[among]

    def _rough(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the product in half precision (n, m), and how far each row's may be off (n,)."""
        half = x.bfloat16()
        off, length = _lengths(x - half), _lengths(x)
        sums = 2.0 * x.shape[1] * 2.0**-24 * self._length  # the rounding of sums in single precision
        error = off * self._length + length * (self._off + sums) + self._bias_off
        rough = torch.ops.mkldnn._linear_pointwise(half, self._weight, self._bias, "none", [], "")
        return rough, error


def order_of(units: Tensor, m: int) -> Tensor:
    """Return the order that sorts numbers below m and leaves equal ones as they are."""
    # NumPy sorts numbers of 16 bits by their digits: in a tenth of the time
    return torch.from_numpy(
        np.argsort(units.numpy().astype(np.uint16 if m <= 2**16 else np.int64), kind="stable")
    )


def row_products(left: Tensor, right: Tensor, rows: Tensor, units: Tensor) -> Tensor:
    """Return ``left[rows] * right[units]``, summed: (p,) for ``left`` (n, d), ``right`` (m, d).

    Twice as fast where the units are sorted, so that each one's numbers are read once.
    """
    starts = rows.new_zeros(1)  # asked for, and without effect for sums
    sums = torch.ops.aten._embedding_bag_per_sample_weights_backward
    return sums(left, right, units, starts, rows, 0)  # type: ignore[no-any-return]


def _lengths(rows: Tensor) -> Tensor:
    """Return at least the length of each row (n, d): squares below the least number count as that."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return lengths.add_(rows.shape[1] ** 0.5 * 2.0**-63)


def _divided(places: NDArray[np.intp], by: int) -> tuple[Tensor, Tensor]:
    """Return places divided by a number, and what is left."""
    whole = torch.from_numpy(places)
    quotient = whole.div(by, rounding_mode="floor")
    return quotient, whole.sub_(quotient, alpha=by)


def _places_of_largest(x: Tensor, k: int) -> Tensor:
    """Return the places of the k largest of each row: those above a bound, where no other equals it."""
    values, width = x.numpy(), x.shape[1]
    bound = np.sort(values, axis=1)[:, width - k, None]
    found = np.flatnonzero(values >= bound)
    if len(found) != len(values) * k or not np.isfinite(bound).all():
        return x.topk(k, dim=1, sorted=False).indices
    return torch.from_numpy(found).view(-1, k).remainder_(width)
