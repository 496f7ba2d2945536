"""The page: whole, self-contained, every section there, nothing of the data read as markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from diabolo import (
    ConvolutionalAutoencoder,
    DeepAutoencoder,
    SparseAutoencoder,
    StackedAutoencoder,
    VariationalAutoencoder,
)
from diabolo.errors import InvalidDataError, InvalidParameterError
from diabolo.report import compare, write_report

QUICK: dict[str, Any] = {"epochs": 2, "random_state": 0, "device": "cpu"}
ALL_SECTIONS = {
    "reconstructions",
    "architecture",
    "settings",
    "learning",
    "latent",
    "units",
    "samples",
    "weights",
    "pca",
    "diagnostics",
}
EVIL = "<script>alert('x')</script>"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects what the browser would load or run, and checks that tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._read(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._read(attrs)

    def _read(self, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key == "data-section":
                self.sections.append(str(value))
            elif key == "id":
                self.ids.append(str(value))
            elif key in ("src", "href", "xlink:href", "srcset", "poster", "data", "action"):
                self.addresses.append(str(value))
            assert not key.startswith("on")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(path: Path) -> tuple[str, Page]:
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert not re.search(r"@import|url\((?!#)", text)
    anchors = {address[1:] for address in page.addresses if address.startswith("#")}
    assert anchors <= set(page.ids)
    assert "script" not in page.tags
    assert len(text) < 3_000_000
    return text, page


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return X[:400].reshape(-1, 8, 8), X[400:550].reshape(-1, 8, 8), y[400:550]


@pytest.mark.parametrize(
    "estimator",
    [
        DeepAutoencoder(latent_dim=4, **QUICK),
        DeepAutoencoder(latent_dim=1, **QUICK),
        VariationalAutoencoder(latent_dim=2, **QUICK),
        SparseAutoencoder(latent_dim=100, **QUICK),
        ConvolutionalAutoencoder(latent_dim=5, **QUICK),
        StackedAutoencoder(latent_dim=5, **QUICK),
    ],
    ids=lambda e: f"{type(e).__name__}-{e.latent_dim}",
)
def test_every_section_for_images(tmp_path: Path, digits: Any, estimator: Any) -> None:
    X_train, X_test, y_test = digits
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    path = write_report(
        tmp_path / "out",
        title="Digits",
        estimators={"model": estimator.fit(X_train)},
        X_train=X_train,
        X_test=X_test,
        y_test=y_test,
        command="diabolo train digits",
    )
    text, page = read(path)
    assert set(page.sections) == ALL_SECTIONS
    assert len(page.ids) >= len(ALL_SECTIONS)
    assert "diabolo train digits" in text
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_a_table_with_hostile_names_and_no_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(300, 3))
    values = hidden @ rng.normal(size=(3, 10)) + 0.1 * rng.normal(size=(300, 10))
    names = [EVIL, "a & b", "$5 and $6", *(f"column {i}" for i in range(7))]
    X = pd.DataFrame(values, columns=names)
    estimator = DeepAutoencoder(latent_dim=3, **QUICK).fit(X[:200])
    path = write_report(
        tmp_path, title=EVIL, estimators={EVIL: estimator}, X_train=X[:200], X_test=X[200:], command=EVIL
    )
    text, page = read(path)
    assert set(page.sections) == ALL_SECTIONS
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "R², features alike" in text


@pytest.mark.parametrize("labels", ["texts", "numbers"])
def test_labels_are_shown_and_escaped(tmp_path: Path, digits: Any, labels: str) -> None:
    X_train, X_test, y_test = digits
    y = (
        np.array([EVIL, "plain", "$x$"])[y_test % 3]
        if labels == "texts"
        else y_test + 0.01 * np.arange(len(y_test))
    )
    estimator = DeepAutoencoder(latent_dim=3, **QUICK).fit(X_train)
    path = write_report(
        tmp_path, title="T", estimators={"m": estimator}, X_train=X_train, X_test=X_test, y_test=y
    )
    text, _ = read(path)
    assert "<script" not in text
    assert ("&lt;script&gt;" in text) == (labels == "texts")


def test_class_names_take_the_place_of_numbers(tmp_path: Path, digits: Any) -> None:
    X_train, X_test, y_test = digits
    estimator = DeepAutoencoder(latent_dim=3, **QUICK).fit(X_train)
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    data = {"X_train": X_train, "X_test": X_test, "y_test": y_test}
    path = write_report(tmp_path, title="T", estimators={"m": estimator}, class_names=names, **data)
    assert ">seven</text>" in path.read_text(encoding="utf-8")
    with pytest.raises(
        InvalidDataError, match="class_names must be one name for each of the 10 labels; got 2 names"
    ):
        write_report(tmp_path, title="T", estimators={"m": estimator}, class_names=["a", "b"], **data)


def test_several_models_with_their_comparison(tmp_path: Path, digits: Any) -> None:
    X_train, X_test, y_test = digits
    settings = {"epochs": 2, "device": "cpu"}
    found = compare(["deep", "variational"], X_train, X_test, y_test=y_test, latent_dim=4, params=settings)
    path = write_report(
        tmp_path,
        title="Two kinds",
        estimators=found.estimators,
        X_train=X_train,
        X_test=X_test,
        y_test=y_test,
        comparison=found,
    )
    text, page = read(path)
    assert page.sections.count("comparison") == 1
    assert page.sections.count("side-by-side") == 1
    assert all(page.sections.count(name) == 2 for name in ALL_SECTIONS)
    for row in found.rows:
        assert f">{row['kind']}</th>" in text


def test_signals(tmp_path: Path) -> None:
    t = np.linspace(0, 6, 48)
    phase = np.random.default_rng(0).uniform(0, 6, (260, 1))
    X = np.sin(t + phase)[:, None, :].astype(np.float32)
    estimator = ConvolutionalAutoencoder(latent_dim=3, **QUICK).fit(X[:200])
    _, page = read(
        write_report(tmp_path, title="Waves", estimators={"m": estimator}, X_train=X[:200], X_test=X[200:])
    )
    assert {"reconstructions", "samples", "latent", "pca"} <= set(page.sections)


def test_what_does_not_fit_is_refused_and_nothing_written(tmp_path: Path, digits: Any) -> None:
    X_train, X_test, y_test = digits
    estimator = DeepAutoencoder(latent_dim=3, **QUICK).fit(X_train)
    with pytest.raises(
        InvalidParameterError, match="estimators must be at least one fitted estimator; got none"
    ):
        write_report(tmp_path / "a", title="T", estimators={}, X_train=X_train, X_test=X_test)
    models = {"m": estimator}
    with pytest.raises(InvalidDataError, match="X_test must be samples of the same shape"):
        write_report(tmp_path / "a", title="T", estimators=models, X_train=X_train, X_test=X_test[:, :4])
    with pytest.raises(InvalidDataError, match="y_test must be one label per test sample; got 3 labels"):
        write_report(
            tmp_path / "a", title="T", estimators=models, X_train=X_train, X_test=X_test, y_test=y_test[:3]
        )
    assert not (tmp_path / "a").exists()
