"""The loss of mixed columns: by hand, beside torch's own costs, gradients; what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import diabolo
from diabolo.errors import IncompatiblePartsError, InvalidDataError, InvalidParameterError, ModelFileError
from diabolo.parts import Mixed
from diabolo.persistence import read_model, write_model

LAYOUT = "categorical:4? numeric binary? categorical:11 numeric? binary categorical:3 categorical:1"
WIDTH = 5 + 1 + 2 + 11 + 2 + 1 + 3 + 1


def rows(generator: torch.Generator, layout: str = LAYOUT, n: int = 6) -> tuple[Tensor, Tensor]:
    """Return raw outputs and targets as an encoder makes them: levels one-hot, indicators 0 or 1."""
    pieces = []
    for block in Mixed(layout).blocks():
        if block.kind == "numeric":
            values = torch.randn(n, 1, generator=generator, dtype=torch.double)
        elif block.kind == "binary":
            values = torch.randint(2, (n, 1), generator=generator).double()
        else:
            level = torch.randint(block.size, (n,), generator=generator)
            values = functional.one_hot(level, block.size).double()
        pieces.append(values)
        if block.missing is not None:
            pieces.append(torch.randint(2, (n, 1), generator=generator).double())
    x = torch.cat(pieces, 1)
    raw = 2 * torch.randn(*x.shape, generator=generator, dtype=torch.double)
    return raw.requires_grad_(), x


def column_by_column(layout: str, raw: Tensor, x: Tensor) -> Tensor:
    """The second formula: torch's own cost of each column, one after the other."""
    costs = []
    for b in Mixed(layout).blocks():
        r, t = raw[:, b.start : b.start + b.size], x[:, b.start : b.start + b.size]
        if b.kind == "numeric":
            cost = functional.mse_loss(r, t, reduction="none").sum(1)
        elif b.kind == "binary":
            cost = functional.binary_cross_entropy(torch.sigmoid(r), t, reduction="none").sum(1)
        else:
            cost = functional.cross_entropy(r, t.argmax(1), reduction="none")
        if b.missing is not None:
            m = x[:, b.missing]
            known = functional.binary_cross_entropy(torch.sigmoid(raw[:, b.missing]), m, reduction="none")
            cost = torch.where(m == 1, torch.zeros_like(cost), cost) + known
        costs.append(cost)
    return torch.stack(costs, 1)


def test_by_hand() -> None:
    loss = Mixed("numeric? binary categorical:3").build().double()
    raw = torch.tensor([[3.0, 0.0, math.log(3.0), 0.0, math.log(2.0), 0.0]] * 2, dtype=torch.double)
    x = torch.tensor([[1.0, 0, 1, 0, 1, 0], [0.0, 1, 0, 0, 0, 1]], dtype=torch.double)
    by_column = loss.by_column(raw, x)
    expected = [
        [4.0 + math.log(2), math.log(4 / 3), math.log(2)],
        [math.log(2), math.log(4), math.log(4)],  # the missing number costs nothing but that it is missing
    ]
    np.testing.assert_allclose(by_column, expected, rtol=1e-12)
    np.testing.assert_allclose(loss(raw, x), by_column.sum(1))
    np.testing.assert_allclose(loss.mean(raw)[0], [3, 0.5, 0.75, 0.25, 0.5, 0.25], rtol=1e-12)


def test_second_formula(generator: torch.Generator) -> None:
    raw, x = rows(generator)
    assert x.shape[1] == WIDTH
    found, expected = Mixed(LAYOUT).build().by_column(raw, x), column_by_column(LAYOUT, raw, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (a,) = torch.autograd.grad(found.sum(), raw)
    (b,) = torch.autograd.grad(expected.sum(), raw)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from(["numeric", "binary"]), st.integers(1, 9).map("categorical:{}".format)),
            st.sampled_from(["", "?"]),
        ).map("".join),
        min_size=1,
        max_size=12,
    ).map(" ".join)
)
def test_any_layout_costs_what_its_columns_cost(layout: str) -> None:
    raw, x = rows(torch.Generator().manual_seed(3), layout)
    module = Mixed(layout).build()
    torch.testing.assert_close(
        module.by_column(raw, x), column_by_column(layout, raw, x), rtol=1e-12, atol=1e-12
    )
    mean = module.mean(raw.detach())
    for b in Mixed(layout).blocks():
        if b.kind == "categorical":
            torch.testing.assert_close(
                mean[:, b.start : b.start + b.size], raw[:, b.start : b.start + b.size].softmax(1).detach()
            )
        if b.missing is not None:
            torch.testing.assert_close(mean[:, b.missing], raw[:, b.missing].sigmoid().detach())
    torch.testing.assert_close(module.mean(module.raw_of(mean[0])[None])[0], mean[0], atol=0.01, rtol=0.01)


def test_gradcheck(generator: torch.Generator) -> None:
    raw, x = rows(generator, n=2)
    module = Mixed(LAYOUT).build().double()
    assert torch.autograd.gradcheck(lambda r: module(r, x), raw)
    soft = torch.rand(2, WIDTH, generator=generator, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda r: module.by_column(r, soft), raw)
    assert torch.autograd.gradcheck(module.mean, raw)


def test_shares_beyond_their_bounds_cost_more_than_at_them() -> None:
    module = Mixed("binary categorical:2").build()
    raw = torch.tensor([[5.0, 1.0, -1.0]])
    inside, beyond = torch.tensor([[1.0, 1, 0]]), torch.tensor([[4.0, 1, -2]])
    more = module.by_column(raw, beyond) - module.by_column(raw, inside)
    torch.testing.assert_close(more, torch.tensor([[2 * 9.0, 2 * 4.0]]))


def test_extreme_outputs_are_finite() -> None:
    module = Mixed("numeric? binary categorical:3").build()
    raw = torch.tensor([[1e4, -1e4, 1e4, 1e4, -1e4, 0.0]], requires_grad=True)
    cost = module(raw, torch.tensor([[0.0, 1, 0, 0, 1, 0]]))
    assert cost.tolist() == [1e4 + 1e4 + 2e4]
    (slope,) = torch.autograd.grad(cost.sum(), raw)
    assert torch.isfinite(slope).all()


NONE = ["", "  ", 3, None, ["numeric"], "numeric, binary", "categorical", "text"]
NONE += ["categorical:0", "categorical:1000000", "numeric:2", "numeric??"]


@pytest.mark.parametrize("layout", NONE)
def test_a_layout_that_is_none(layout: object) -> None:
    with pytest.raises(
        InvalidParameterError, match=r"layout of Mixed must be .*; got .*Give for example 'numeric"
    ):
        Mixed(layout)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    _, x = rows(torch.Generator().manual_seed(0), n=60)
    return x.numpy()


def model(**settings: object) -> diabolo.Autoencoder:
    return diabolo.Autoencoder(
        **({"loss": Mixed(LAYOUT), "epochs": 2, "latent_dim": 5, "random_state": 0} | settings)
    )


def test_what_does_not_fit_is_refused(table: np.ndarray) -> None:
    with pytest.raises(
        IncompatiblePartsError, match=r"a sample must have 26 values for the layout .* got 25"
    ):
        model().fit(table[:, 1:])
    with pytest.raises(
        IncompatiblePartsError, match=r"scaling must be None or 'auto' for loss='mixed'.*'min"
    ):
        model(scaling="minmax").fit(table)
    with pytest.raises(
        IncompatiblePartsError, match=r"output_activation must be None for .*'mixed'.*; got 'relu'. Leave"
    ):
        model(output_activation="relu").fit(table)
    with pytest.raises(
        InvalidDataError, match=r"column 0 must lie in \[0, 1\] for loss='mixed'; got \[0, 2\]. Give rows as"
    ):
        model().fit(table * 2)


@pytest.mark.parametrize("engine", ["auto", "autograd"])
def test_trains_and_comes_back_from_a_file(table: np.ndarray, engine: str, tmp_path) -> None:
    fitted = model(engine=engine, epochs=30).fit(table)
    assert fitted.recipe_.scaling is None
    assert fitted.history_.engine == ("dense" if engine == "auto" else "autograd")
    losses = [row["training_loss"] for row in fitted.history_.rows]
    assert losses[-1] < 0.8 * losses[0]
    again = diabolo.load(fitted.save(tmp_path / "model.safetensors"))
    assert again.loss == Mixed(LAYOUT)
    assert again.score_samples(table).tobytes() == fitted.score_samples(table).tobytes()
    assert again.reconstruct(table).tobytes() == fitted.reconstruct(table).tobytes()
    assert "mixed (2 numeric, 2 binary, 4 categorical)" in str(fitted.diagram())


def test_both_steps_agree(table: np.ndarray) -> None:
    a, b = (model(engine=engine, validation_fraction=0).fit(table) for engine in ("dense", "autograd"))
    np.testing.assert_allclose(a.reconstruct(table), b.reconstruct(table), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("layout", ["numeric", "categorical:999999", "numeric " * 26, LAYOUT + "?", 7])
def test_a_file_with_another_layout_is_refused(table: np.ndarray, layout: object, tmp_path) -> None:
    header, tensors = read_model(model().fit(table).save(tmp_path / "model.safetensors"))
    header["recipe"]["loss"]["layout"] = layout
    path = write_model(tmp_path / "other.safetensors", header, tensors)
    if layout == "numeric " * 26:  # as wide, and of the same weights: another model, but a sound one
        assert diabolo.load(path).recipe_.loss.layout == layout
        return
    with pytest.raises(ModelFileError):
        diabolo.load(path)
