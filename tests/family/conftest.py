"""The family: every estimator, data it trains on in no time, and one fitted estimator of each kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import diabolo

NAMES = [name for name, _ in diabolo.all_estimators()]
QUICK = {"latent_dim": 4, "epochs": 3, "batch_size": 32, "random_state": 0}


def make(name: str, **settings: Any) -> Any:
    return getattr(diabolo, name)(**(QUICK | settings))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits():
    """Training and test rows, (1300, 64) and (497, 64), values 0 to 16."""
    X = load_digits().data
    return X[:1300], X[1300:]


@pytest.fixture(scope="session")
def rows():
    """A table of 90 rows and 6 columns of different units that lies near a plane."""
    chance = np.random.default_rng(7)
    codes = chance.normal(size=(90, 3))
    return codes @ chance.normal(size=(3, 6)) * [1, 10, 100, 1, 0.1, 1] + [0, 5, -100, 0, 3, 0]


@pytest.fixture(scope="session", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="session")
def fitted(name, rows):
    """One fitted estimator of each kind: look, do not refit."""
    return make(name).fit(rows)
