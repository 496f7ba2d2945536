"""The k largest of many units, by a shortlist in half precision too: exactly those of the whole product."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from diabolo.training import largest as module
from diabolo.training.largest import largest, largest_products, order_of, row_products
from diabolo.training.machine import multiplies_half

half = pytest.mark.skipif(
    not multiplies_half(torch.device("cpu")), reason="the processor does not multiply bfloat16"
)


def test_the_largest_are_those_of_topk() -> None:
    g = torch.Generator().manual_seed(0)
    for n, m, k in itertools.product((1, 7), (64, 100, 160, 1024), (1, 2, 5, 16)):
        for dtype in (torch.float32, torch.float64):
            h = torch.randn(n, m, generator=g, dtype=dtype)
            values, places = largest(h, k)
            assert torch.equal(h.gather(1, places), values)
            assert torch.equal(values.sort(1).values, h.topk(k, 1).values.sort(1).values)
            assert all(len(set(row.tolist())) == k for row in places)


@pytest.mark.parametrize("kind", ["constant", "few values", "infinite", "nan"])
def test_the_largest_of_equal_and_of_invalid_values(kind: str) -> None:
    h = torch.randint(0, 3, (6, 128), generator=torch.Generator().manual_seed(0)).float()
    if kind == "constant":
        h = torch.ones_like(h)
    elif kind == "infinite":
        h[2], h[3] = torch.inf, -torch.inf
    elif kind == "nan":
        h[1, 5] = h[4] = torch.nan
    values, places = largest(h, 3)
    torch.testing.assert_close(h.gather(1, places), values, equal_nan=True)
    expected = h.topk(3, 1).values.sort(1).values
    torch.testing.assert_close(values.sort(1).values, expected, equal_nan=True)
    assert all(len(set(row.tolist())) == 3 for row in places)


def test_products_of_rows() -> None:
    g = torch.Generator().manual_seed(0)
    left, right = torch.randn(5, 7, generator=g), torch.randn(9, 7, generator=g)
    rows, units = torch.randint(0, 5, (40,), generator=g), torch.randint(0, 9, (40,), generator=g)
    order = order_of(units, 9)
    assert torch.equal(units[order], units.sort(stable=True).values)
    assert torch.equal(order_of(units, 2**17), order)
    expected = (left[rows] * right[units]).sum(1)
    torch.testing.assert_close(row_products(left, right, rows, units), expected)


Problem = tuple[Tensor, Tensor, Tensor]


def problem(kind: str, n: int = 200, d: int = 48, m: int = 512) -> Problem:
    """Return x (n, d), weight (m, d) and bias (m,) of some kind."""
    g = torch.Generator().manual_seed(7)
    x, w = torch.randn(n, d, generator=g), torch.randn(m, d, generator=g) / d**0.5
    b = torch.zeros(m)
    if kind == "biased":
        b = torch.randn(m, generator=g)
    elif kind == "shifted":
        x += 2.0
    elif kind == "heavy tails":
        x, w = x**5, w * torch.randn(m, 1, generator=g).exp()
    elif kind == "tiny":  # squares of such numbers are nought in single precision
        x *= 1e-30
    elif kind == "huge":
        x *= 1e25
    elif kind == "alike":  # units closer to each other than half precision tells
        w = w[:1] + 1e-4 * w
    elif kind == "pairs":  # each unit twice, the second a little less: half precision makes them equal
        w = (w[: m // 2, None] * torch.tensor([[1.0], [1.0 - 2.0**-11]])).flatten(0, 1)
    elif kind == "all below nought":
        b = torch.full((m,), -50.0)
    return x, w, b


@half
@pytest.mark.parametrize(
    "kind",
    ["plain", "biased", "shifted", "heavy tails", "tiny", "huge", "alike", "pairs", "all below nought"],
)
def test_a_shortlist_holds_the_largest(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, b = problem(kind)
    monkeypatch.setattr(module, "_UNITS_PER_CANDIDATE", 1)  # however many come into question
    k = 4
    found = module._Shortlist(w, b, k)(x)
    exact = torch.addmm(b.double(), x.double(), w.double().t())
    if found is None:
        assert kind == "huge"
        return
    values, places = found
    torch.testing.assert_close(
        values.double(), exact.gather(1, places), rtol=1e-5, atol=1e-5 * float(x.abs().max())
    )
    # what single precision itself leaves open: the least of the chosen against the greatest of the others
    open_ = 1e-6 * x.double().norm(dim=1) * w.double().norm(dim=1).max() + 1e-6 * b.abs().max()
    least = exact.gather(1, places).amin(1)
    others = exact.scatter(1, places, -torch.inf).amax(1)
    assert (least >= others - open_).all()


@half
@pytest.mark.parametrize("kind", ["plain", "biased", "heavy tails"])
def test_how_far_half_precision_is_off(kind: str) -> None:
    x, w, b = problem(kind)
    rough, error = module._Shortlist(w, b, 4)._rough(x)
    exact = torch.addmm(b.double(), x.double(), w.double().t())
    off = (rough.double() - exact).abs() - 2.0**-8 * rough.double().abs()
    bound = error.double()
    assert (off.amax(1) <= bound).all()
    assert (off.amax(1) >= 0.02 * bound).any()  # and is not far less


def crafted(first: list[float], second: list[float], *biases: float) -> Problem:
    """Return a row of ones and units: the first is the largest, all but the second are far below."""
    w, b = torch.zeros(512, len(first)), torch.zeros(512)
    w[:, -1] = -2.0
    w[0], w[1] = torch.tensor(first), torch.tensor(second)
    b[: len(biases)] = torch.tensor(biases)
    return torch.ones(1, len(first)), w, b


# each is lost where one term of the bound is left out or halved, since half precision puts the second first:
# it makes 1 of 1 + 0.99 U and 1 + 2 U of 1 + 1.01 U
U = 2.0**-8
CRAFTED: dict[str, Problem] = {
    "weights": crafted([1 + 0.99 * U, U / 16, -1.0], [1 + 1.01 * U, 0.0, -1.0]),
    "biases": crafted([-1.0, U / 16], [-1.0, 0.0], 1 + 0.99 * U, 1 + 1.01 * U),
    "result": crafted(
        [1.0, *2 * [U / 2 * (1 + U - U / 64)]], [1.0, U / 2 * (1 + U + U / 64), U / 2 * (1 - U / 2 + U / 64)]
    ),
}
x, w, b = CRAFTED["weights"]
CRAFTED["tiny"] = x * 2.0**-80, w, b  # squares of such numbers are nought in single precision
x, w, b = crafted([1.0, 0.0, 1.0, -1.0], [0.0, 1.0, 0.0, -1.0])
CRAFTED["row"] = torch.tensor([[1 + 0.99 * U, 1 + 1.01 * U, U / 16, 1.0]]), w, b


@half
@pytest.mark.parametrize("case", CRAFTED)
def test_what_half_precision_puts_second_is_on_the_list(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, b = CRAFTED[case]
    assert module._Shortlist(w, b, 1)._rough(x)[0].argmax() == 1
    for units_per_candidate in (module._UNITS_PER_CANDIDATE, 1):
        monkeypatch.setattr(module, "_UNITS_PER_CANDIDATE", units_per_candidate)
        monkeypatch.setattr(module, "_LEAST_WORK", 1)
        _, places = largest_products(x, w, b, 1)
        assert places.tolist() == [[0]]


@half
def test_too_many_in_question() -> None:
    x, w, b = problem("alike")
    assert module._Shortlist(w, b, 4)(x) is None
    x, w, b = problem("plain")
    for value in (torch.nan, torch.inf):
        x[5, 1] = value
        assert module._Shortlist(w, b, 4)(x) is None


@half
@pytest.mark.parametrize("kind", ["plain", "biased"])
def test_rows_to_which_all_units_are_alike(kind: str) -> None:
    x, w, b = problem(kind)
    x[[3, 50]] = 0.0
    found = module._Shortlist(w, b, 4)(x)
    assert found is not None
    values, places = found
    exact = torch.addmm(b, x, w.t())
    torch.testing.assert_close(exact.gather(1, places), values)
    torch.testing.assert_close(values.sort(1).values, exact.topk(4, 1).values.sort(1).values)
    assert all(len(set(row.tolist())) == 4 for row in places)


@half
@pytest.mark.parametrize("kind", ["plain", "alike", "changing"])
def test_both_ways_choose_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, b = problem("plain" if kind == "changing" else kind, n=700)
    if kind == "changing":  # beyond the rows that tell whether it pays
        x[400:] = 0.0
    expected = largest(torch.addmm(b, x, w.t()), 4)
    asked: list[bool] = []
    shortlisted = module._Shortlist.__call__

    def noted(self: module._Shortlist, part: Tensor) -> tuple[Tensor, Tensor] | None:
        found = shortlisted(self, part)
        asked.append(found is not None)
        return found

    monkeypatch.setattr(module._Shortlist, "__call__", noted)
    monkeypatch.setattr(module, "_CHUNK_VALUES", 100 * 512)
    monkeypatch.setattr(module, "_UNITS_PER_CANDIDATE", 16)
    for work in (1, 2**60):
        monkeypatch.setattr(module, "_LEAST_WORK", work)
        values, places = largest_products(x, w, b, 4)
        torch.testing.assert_close(values.sort(1).values, expected[0].sort(1).values, rtol=1e-4, atol=1e-5)
        if kind == "plain":
            assert torch.equal(places.sort(1).values, expected[1].sort(1).values)
    # 128 rows, then 100 at a time
    assert asked == {"plain": 7 * [True], "alike": [False], "changing": 3 * [True] + 4 * [False]}[kind]
