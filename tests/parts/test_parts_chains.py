"""Law 5 for the norm of a chain of matrices: a value by hand, gradcheck, a second formula."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diabolo.parts import chains
from diabolo.parts.chains import chain_norm

# widths from the input to the code, and which layers have slopes
CHAINS: dict[str, tuple[tuple[int, ...], tuple[bool, ...]]] = {
    "one": ((5, 3), (True,)),
    "one, no slope": ((5, 3), (False,)),
    "two": ((6, 4, 3), (True, True)),
    "two, wide hidden": ((3, 7, 2), (True, True)),
    "two, linear code": ((6, 4, 3), (True, False)),
    "two, linear below": ((6, 4, 3), (False, True)),
    "two, all linear": ((6, 4, 3), (False, False)),
    "two, more units": ((3, 4, 6), (True, True)),
    "two, more units, linear below": ((3, 4, 6), (False, True)),
    "three": ((6, 5, 4, 3), (True, True, True)),
    "three, linear code": ((6, 5, 4, 3), (True, True, False)),
    "three, linear in the middle": ((6, 5, 4, 3), (True, False, True)),
    "three, more units": ((2, 5, 4, 3), (True, True, True)),
    "three, more units, linear code": ((2, 5, 4, 3), (True, True, False)),
    "four": ((6, 5, 3, 4, 2), (True, True, True, True)),
}
N = 4


def build(name: str) -> tuple[list[Tensor], list[Tensor | None]]:
    g = torch.Generator().manual_seed(0)
    widths, sloped = CHAINS[name]
    weights = [torch.randn(b, a, generator=g).double().requires_grad_() for a, b in pairwise(widths)]
    slopes = [
        torch.randn(N, b, generator=g).double().requires_grad_() if s else None
        for b, s in zip(widths[1:], sloped, strict=True)
    ]
    return weights, slopes


def explicit(weights: list[Tensor], slopes: list[Tensor | None]) -> Tensor:
    """The second formula: the product itself."""
    product = torch.eye(weights[0].shape[1]).double().expand(N, -1, -1)
    for w, s in zip(weights, slopes, strict=True):
        product = w @ product if s is None else s[:, :, None] * (w @ product)
    return product.square().sum((1, 2))


def test_values_by_hand() -> None:
    w, v = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    d = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    # (1, 2) + 2 (3, 0) = (7, 2) and (3, 0)
    assert chain_norm([w, v], [d, None], 2).tolist() == [53.0, 9.0]
    assert chain_norm([w, v], [d, torch.tensor([[2.0], [1.0]])], 2).tolist() == [212.0, 9.0]
    assert chain_norm([w], [d], 2).tolist() == [1 * 5.0 + 4 * 9.0, 9.0]
    assert chain_norm([w], [None], 2).tolist() == [14.0, 14.0]


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize(("chunk", "block"), [(524_288, 128), (1, 2), (60, 3)])
def test_it_is_the_explicit_product(
    name: str, chunk: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "_CHUNK_VALUES", chunk)
    monkeypatch.setattr(chains, "_BLOCK", block)
    weights, slopes = build(name)
    inputs = [*weights, *(s for s in slopes if s is not None)]
    found, expected = chain_norm(weights, slopes, N), explicit(weights, slopes)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for pull in (torch.ones(N), torch.full((N,), 0.3), torch.arange(1.0, N + 1)):  # alike, and not
        for a, b in zip(
            torch.autograd.grad(chain_norm(weights, slopes, N), inputs, pull.double()),
            torch.autograd.grad(explicit(weights, slopes), inputs, pull.double()),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CHAINS)
def test_gradcheck(name: str) -> None:
    weights, slopes = build(name)
    size = len(weights)

    def norms(*tensors: Tensor) -> Tensor:
        given = iter(tensors[size:])
        return chain_norm(tensors[:size], [None if s is None else next(given) for s in slopes], N)

    assert torch.autograd.gradcheck(norms, (*weights, *(s for s in slopes if s is not None)))


def test_slopes_and_weights_that_learn_nothing() -> None:
    weights, slopes = build("three")
    constant = [None if s is None else s.detach() for s in slopes]
    weights[0] = weights[0].detach()
    found = chain_norm(weights, constant, N)
    for a, b in zip(
        torch.autograd.grad(found.sum(), weights[1:]),
        torch.autograd.grad(explicit(weights, constant).sum(), weights[1:]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        assert not chain_norm(*build("three"), N).requires_grad
