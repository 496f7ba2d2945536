r"""The loss of a table whose columns are of several kinds, each with the cost that fits it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from diabolo.errors import IncompatiblePartsError, InvalidParameterError
from diabolo.parts.losses import Loss, LossModule

_WORD = re.compile(r"(numeric|binary|categorical:([1-9][0-9]{0,5}))(\??)")
_RARE = 1e-3  # a share that training never saw starts here: 0 has no logit
_EXAMPLE = "Give for example 'numeric binary? categorical:3', or the layout_ of a TableEncoder."


@dataclass(frozen=True)
class Block:
    """The values that one column of a table became: where they lie in a row, and what they are.

    ``size`` values from ``start`` hold the column's content; ``missing`` is the position of its indicator,
    1 where the content is missing, or None.
    """

    kind: str
    start: int
    size: int
    missing: int | None

    @property
    def stop(self) -> int:
        """The position behind the block, indicator included."""
        return self.start + self.size + (self.missing is not None)


class MixedModule(LossModule):
    """The cost of each column by its kind; ``by_column`` gives them one by one.

    Targets of shares (all but numeric values) beyond [0, 1] cost what their nearest bound does, and twice
    the squared excess, as ``score_samples`` has it for cross-entropy.
    """

    numeric: Tensor
    binary: Tensor
    missing: Tensor
    nullable: Tensor
    order: Tensor
    owner: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        by_kind = {k: [i for i, b in enumerate(blocks) if b.kind == k] for k in Mixed.KINDS}
        numeric, binary, categorical = by_kind.values()
        # Blocks of about the same number of levels go together, filled up to the largest of them.
        self._groups = 0
        order = [*numeric, *binary]
        for bits in sorted({(blocks[i].size - 1).bit_length() for i in categorical}):
            group = [i for i in categorical if (blocks[i].size - 1).bit_length() == bits]
            most = max(blocks[i].size for i in group)
            places = torch.arange(most) + torch.tensor([[blocks[i].start] for i in group])
            beyond = torch.arange(most) >= torch.tensor([[blocks[i].size] for i in group])
            self._keep(f"levels_{self._groups}", places.masked_fill(beyond, 0))
            self._keep(f"beyond_{self._groups}", beyond)
            self._groups += 1
            order += group
        shares = [b.missing for b in blocks if b.missing is not None]
        self._keep("numeric", torch.tensor([blocks[i].start for i in numeric], dtype=torch.long))
        self._keep("binary", torch.tensor([blocks[i].start for i in binary], dtype=torch.long))
        self._keep("missing", torch.tensor(shares, dtype=torch.long))
        self._keep("order", torch.argsort(torch.tensor(order)))
        nullable = [i for i, b in enumerate(blocks) if b.missing is not None]
        self._keep("nullable", torch.tensor(nullable, dtype=torch.long))
        widths = torch.tensor([b.stop - b.start for b in blocks])
        self._keep("owner", torch.repeat_interleave(torch.arange(len(blocks)), widths))
        self._keep("low", torch.zeros(blocks[-1].stop).index_fill(0, self.numeric, -math.inf))
        self._keep("high", torch.ones(blocks[-1].stop).index_fill(0, self.numeric, math.inf))

    def _keep(self, name: str, value: Tensor) -> None:
        """Hold a tensor that follows from the layout, and so need not be stored with the weights."""
        self.register_buffer(name, value, persistent=False)

    def _levels(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Return places (k, levels) of each group of categorical blocks, and which are filled up."""
        for i in range(self._groups):
            yield self.get_buffer(f"levels_{i}"), self.get_buffer(f"beyond_{i}")

    def mean(self, raw: Tensor) -> Tensor:
        """Map raw output (n, *shape) to values, shares and shares of the levels."""
        flat = raw.flatten(1)
        shares = torch.cat([self.binary, self.missing])
        out = flat.index_copy(1, shares, torch.sigmoid(flat[:, shares]))
        for places, beyond in self._levels():
            levels = flat[:, places].masked_fill(beyond, -math.inf).softmax(-1)
            out = out.index_copy(1, places[~beyond], levels[:, ~beyond])
        return out.view_as(raw)

    def raw_of(self, mean: Tensor) -> Tensor:
        """Return raw output (n_values,) whose reconstruction is near ``mean``."""
        rare = mean.clamp(_RARE, 1 - _RARE)
        out = torch.where(torch.isinf(self.low), mean, torch.logit(rare))
        for places, beyond in self._levels():
            inside = places[~beyond]
            out[inside] = mean[inside].clamp(min=_RARE).log()
        return out

    def by_column(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the cost of each column of the table for each sample, (n, n_columns)."""
        raw, target = raw.flatten(1), target.flatten(1)
        inside = torch.clamp(target, self.low.to(target), self.high.to(target))
        costs = [
            (raw[:, self.numeric] - target[:, self.numeric]).square(),
            _cross_entropy(raw[:, self.binary], inside[:, self.binary]),
        ]
        for places, beyond in self._levels():
            logs = raw[:, places].masked_fill(beyond, -math.inf).log_softmax(-1).masked_fill(beyond, 0.0)
            costs.append(-(inside[:, places] * logs).sum(-1))
        cost = torch.cat(costs, 1).index_select(1, self.order)
        if len(self.missing):
            absent = inside[:, self.missing]
            there = cost[:, self.nullable] * (1 - absent)
            cost = cost.index_copy(1, self.nullable, there + _cross_entropy(raw[:, self.missing], absent))
        return cost.index_add(1, self.owner, 2.0 * (target - inside).square())

    def forward(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the cost of each sample, (n,)."""
        return self.by_column(raw, target).sum(1)


def _cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, shares, reduction="none")


@dataclass
class Mixed(Loss):
    r"""Columns of several kinds: squared error of numbers, cross-entropy of flags and of levels.

    .. math:: \sum_{c} (1 - m_c)\, \ell_c(x_c, \hat x_c) + H(m_c, \hat m_c)

    where :math:`\ell_c` is :math:`(x - \hat x)^2` for a numeric column, the cross-entropy of one logit for a
    binary one and :math:`-\sum_k x_k \log \hat x_k` over softmax shares for a categorical one, and
    :math:`m_c` is 1 where the value is missing: then it costs nothing, but that it is missing is predicted,
    with cross-entropy H, in columns that have an indicator. Rows are in units of their own, such as
    ``TableEncoder`` makes them: mean 0 and variance 1 for numbers, 0 and 1 for the others, and are not
    scaled again. Cross-entropies are in nats, squares in scaled units.

    Parameters
    ----------
    layout : str, default="numeric"
        The columns in their order, separated by blanks: ``numeric`` and ``binary`` take one value,
        ``categorical:k`` takes k; a ``?`` behind it adds the indicator, one value more.
    """

    KINDS: ClassVar[tuple[str, ...]] = ("numeric", "binary", "categorical")

    name: ClassVar[str] = "mixed"
    link: ClassVar[str] = "mixed"
    scalable: ClassVar[bool] = False
    layout: str = "numeric"

    def validate(self) -> None:
        """Check the settings."""
        if not isinstance(self.layout, str) or not self.layout.split():
            raise InvalidParameterError(
                f"layout of Mixed must be a text that names the kind of each column; got {self.layout!r}. "
                + _EXAMPLE
            )
        for word in self.layout.split():
            if not _WORD.fullmatch(word):
                raise InvalidParameterError(
                    "each word in layout of Mixed must be numeric, binary or categorical:k with k from 1 to "
                    f"999999, with or without a ? behind it; got {word[:40]!r}. {_EXAMPLE}"
                )

    def blocks(self) -> list[Block]:
        """Return where each column's values lie in a row."""
        found: list[Block] = []
        start = 0
        for word in self.layout.split():
            match = _WORD.fullmatch(word)
            assert match is not None
            size = int(match[2] or 1)
            missing = start + size if match[3] else None
            found.append(Block(match[1].split(":")[0], start, size, missing))
            start = found[-1].stop
        return found

    def column_of(self) -> list[int]:
        """Return the number of the column that each value of a row belongs to."""
        return [i for i, block in enumerate(self.blocks()) for _ in range(block.start, block.stop)]

    def bounds(self) -> tuple[list[float], list[float]]:
        """Return the least and the greatest target of each value in a row."""
        low: list[float] = []
        high: list[float] = []
        for block in self.blocks():
            number = block.kind == "numeric"
            extra = block.missing is not None
            low += [-math.inf if number else 0.0] * block.size + [0.0] * extra
            high += [math.inf if number else 1.0] * block.size + [1.0] * extra
        return low, high

    def check_fits(self, shape: tuple[int, ...], scaling: str | None) -> None:
        """Raise IncompatiblePartsError unless rows have as many values as the layout, and stay unscaled."""
        width = self.blocks()[-1].stop
        if math.prod(shape) != width:
            raise IncompatiblePartsError(
                f"a sample must have {width} values for the layout of loss='mixed'; got {math.prod(shape)}. "
                "Take layout_ of the TableEncoder that made the rows."
            )
        super().check_fits(shape, scaling)

    def build(self) -> MixedModule:
        """Return the loss ready to run."""
        return MixedModule(self.blocks())

    def describe(self) -> str:
        """Return a short text for drawings and pages."""
        kinds = [block.kind for block in self.blocks()]
        return f"mixed ({', '.join(f'{kinds.count(k)} {k}' for k in self.KINDS if k in kinds)})"
