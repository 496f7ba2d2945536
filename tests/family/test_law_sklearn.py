"""Law 1: scikit-learn's own checks, all of them, and its ways of composing estimators."""

from __future__ import annotations

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from conftest import make
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import diabolo
from diabolo.parts import LayerWise, MaskingNoise, TopK

# what may be skipped: the estimators do not offer scikit-learn's array API
SKIPPED = {"check_array_api_input"}


def run_checks(estimator):
    results = check_estimator(estimator, on_skip=None)
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert skipped <= SKIPPED
    assert {r["status"] for r in results} <= {"passed", "skipped"}
    assert len(results) > 40


@pytest.mark.filterwarnings("ignore::diabolo.errors.DiaboloWarning")
def test_checks_with_defaults(name):
    run_checks(getattr(diabolo, name)())


@pytest.mark.filterwarnings("ignore::diabolo.errors.DiaboloWarning")
def test_checks_with_small_settings(name):
    run_checks(getattr(diabolo, name)(latent_dim=1, epochs=2, batch_size=8, validation_fraction=0))


def test_no_default_is_shared_between_estimators(name):
    for value in getattr(diabolo, name)().get_params(deep=False).values():
        assert value is None or isinstance(value, (int, float, str))


def test_grid_search_reaches_the_settings_of_parts(rows):
    model = make("DenoisingAutoencoder", corruption=MaskingNoise(0.1), validation_fraction=0)
    search = GridSearchCV(model, {"corruption__fraction": [0.1, 0.9], "latent_dim": [1, 3]}, cv=2)
    search.fit(rows)
    assert search.best_params_["latent_dim"] == 3
    assert search.best_estimator_.recipe_.corruption.fraction == search.best_params_["corruption__fraction"]
    assert model.corruption.fraction == 0.1  # the one given is not touched


def test_clone_copies_parts(rows):
    model = make("SparseAutoencoder", latent=TopK(2), hidden_dims=(5,), training=LayerWise(epochs=1))
    copy = clone(model.fit(rows))
    assert copy.latent == model.latent
    assert copy.latent is not model.latent
    assert not hasattr(copy, "module_")
    assert copy.set_params(latent__k=1).fit(rows).recipe_.latent.k == 1
    assert model.latent.k == 2


def test_pipeline_there_and_back(name, rows):
    pipeline = make_pipeline(StandardScaler(), make(name)).fit(rows)
    codes = pipeline.transform(rows)
    assert codes.shape == (90, 4)
    assert pipeline.inverse_transform(codes).shape == rows.shape


def test_pipeline_there_and_back_with_flattened_images(digits):
    model = make("ConvolutionalAutoencoder", input_shape=(8, 8), epochs=1)
    pipeline = make_pipeline(StandardScaler(), model).fit(digits[0])
    assert pipeline.inverse_transform(pipeline.transform(digits[1])).shape == digits[1].shape


def test_frames_of_either_library_and_sparse_rows_give_the_same_codes(name, rows):
    columns = [f"c{i}" for i in range(6)]
    expected = make(name).fit(rows).transform(rows)
    for frame in (pd.DataFrame(rows, columns=columns), pl.DataFrame(rows, schema=columns)):
        model = make(name).fit(frame)
        assert list(model.feature_names_in_) == columns
        np.testing.assert_array_equal(model.transform(frame), expected)
    for matrix in (sparse.csr_matrix(rows), sparse.csc_array(rows)):
        np.testing.assert_array_equal(make(name).fit(matrix).transform(matrix), expected)
        np.testing.assert_array_equal(make(name).fit(matrix).reconstruct(matrix).shape, rows.shape)
    np.testing.assert_array_equal(make(name).fit(rows.tolist()).transform(rows.tolist()), expected)


@pytest.mark.parametrize(("library", "kind"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)])
def test_set_output(fitted, rows, library, kind):
    out = clone(fitted).set_output(transform=library).fit(rows).transform(rows)
    assert isinstance(out, kind)
    assert list(out.columns) == list(fitted.get_feature_names_out())
    assert list(out.columns) == [f"{type(fitted).__name__.lower()}{i}" for i in range(4)]


def test_columns_in_another_order_are_refused(rows):
    frame = pd.DataFrame(rows, columns=list("abcdef"))
    model = make("Autoencoder").fit(frame)
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(frame[list("bacdef")])


def test_joblib_and_pickle_keep_everything(fitted, rows, tmp_path):
    joblib.dump(fitted, tmp_path / "model.joblib")
    copy = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(copy.transform(rows), fitted.transform(rows))
    np.testing.assert_array_equal(copy.sample(3, random_state=1), fitted.sample(3, random_state=1))
    assert copy.history_ == fitted.history_


def test_the_table_of_kinds_is_the_list_of_estimators():
    listed = dict(diabolo.all_estimators())
    assert list(listed) == [n for n in listed if n in diabolo.__all__]
    for cls in listed.values():
        assert issubclass(cls, diabolo.Autoencoder)
        assert "Parameters\n" in cls.__doc__
