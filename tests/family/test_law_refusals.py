"""Laws 6 and 9 and the list of bad input: every refusal is one sentence that names the way out."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from conftest import make
from scipy import sparse
from sklearn.exceptions import NotFittedError

import diabolo
from diabolo.errors import DivergedError, DivergenceWarning, InvalidDataError, InvalidParameterError
from diabolo.parts import Dense

READ = ("transform", "reconstruct", "reconstruction_error", "score_samples", "score", "diagnostics")


def refused(call, *texts, error=ValueError):
    """The call raises one sentence, with a way out, that contains all texts."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert re.search(r"must .*; got .*", message), message
    assert "\n" not in message
    for text in texts:
        assert text in message


# ------------------------------------------------------------------ law 9
@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "inf")])
def test_values_that_are_none_are_named_by_row_and_column(name, rows, value, word):
    spoiled = rows.copy()
    spoiled[17, 4] = value
    refused(lambda: make(name).fit(spoiled), f"got {word} at row 17, column 4", "1 such value", "Impute")
    frame = pd.DataFrame(spoiled, columns=list("abcdef"))
    refused(lambda: make(name).fit(frame), "row 17, column 'e' (position 4)")


def test_every_method_refuses_values_that_are_none(fitted, rows):
    spoiled = rows[:5].astype(np.float32)
    spoiled[3, 2] = np.nan
    for method in READ:
        refused(lambda method=method: getattr(fitted, method)(spoiled), "got NaN at row 3, column 2")
    refused(lambda: fitted.interpolate(rows[0], spoiled[3]), "b must be finite", "position 2")
    refused(lambda: fitted.inverse_transform(np.full((2, 4), np.nan)), "codes must be finite")


def test_missing_values_of_every_kind_of_data(rows):
    images = np.zeros((5, 3, 4))
    images[2, 1, 3] = np.nan
    refused(lambda: make("Autoencoder").fit(images), "row 2, position (1, 3)")
    for missing in (pd.array([1, None, 3], dtype="Int64"), [1.0, None, 3.0]):
        frame = pd.DataFrame({"a": [1, 2, 3], "b": missing})
        refused(lambda frame=frame: make("Autoencoder").fit(frame), "got NaN at row 1, column 'b'")
    refused(lambda: make("Autoencoder").fit(pl.DataFrame({"a": [1, 2], "b": [1, None]})), "row 1, column 'b'")
    spoiled = rows.copy()
    spoiled[1, 1] = np.nan
    refused(lambda: make("Autoencoder").fit(sparse.csr_matrix(spoiled)), "got NaN at row 1, column 1")
    refused(lambda: make("Autoencoder").fit([[1.0, None], [2.0, 3.0], [1.0, 4.0]]), "row 0, column 1")


@pytest.mark.parametrize("rate", [1e3, 1e6, 1e30])
def test_a_divergence_goes_back_or_gives_up_but_never_hands_out_nan(name, rows, rate):
    model = make(name, learning_rate=rate)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            model.fit(rows)
        except DivergedError:
            with pytest.raises(NotFittedError):
                model.transform(rows)
            return
    assert all(np.isfinite(value.numpy()).all() for value in model.module_.state_dict().values())
    lowered = [str(w.message) for w in told if issubclass(w.category, DivergenceWarning)]
    assert lowered == [event for event in model.history_.events if "diverged" in event]
    assert all("learning_rate now" in text for text in lowered)


def test_some_rate_diverges(rows):
    text = r"learning_rate must let the loss stay finite; got a divergence .*Set learning_rate below"
    with (
        pytest.warns(DivergenceWarning, match="back to the last good weights"),
        pytest.raises(DivergedError, match=text),
    ):
        make("DeepAutoencoder", learning_rate=1e30).fit(rows)


# ------------------------------------------------------------------ data
def test_data_without_content(name, rows):
    refused(lambda: make(name).fit(rows[:0]), "at least 2 rows; got 0 samples")
    refused(lambda: make(name).fit(rows[:1]), "at least 2 rows; got 1 sample.")
    refused(lambda: make(name).fit(np.ones((9, 3))), "X must vary", "Check the source")
    refused(lambda: make(name).fit(rows).transform(rows[:0]), "at least 1 row; got 0 samples")


def test_a_constant_column_comes_back_as_it_was(name, rows):
    X = np.column_stack([rows, np.full(90, 0.1), np.full(90, -1e6)])
    for scaling in ("auto", "standard", "minmax"):
        model = make(name, scaling=scaling).fit(X)
        assert np.isfinite(model.reconstruct(X)).all()
        assert np.isfinite(model.score_samples(X)).all()
        np.testing.assert_allclose(model.reconstruct(X)[:, 7], -1e6, rtol=1e-4)


def test_text_is_named(rows):
    frame = pd.DataFrame({"height": [1.0, 2.0, 3.0], "town": ["Rome", "Oslo", "Bonn"]})
    refused(lambda: make("Autoencoder").fit(frame), "column 'town' must be numeric; got 'Rome'")
    frame = pd.DataFrame({"height": [1.0, "2", "tall"], "x": [1, 2, 3]})
    refused(lambda: make("Autoencoder").fit(frame), "column 'height' must be numeric; got 'tall'")
    frame = pl.DataFrame({"town": ["Rome", "Oslo"], "x": [1, 2]})
    refused(lambda: make("Autoencoder").fit(frame), "column 'town' must be numeric; got 'Rome'")
    frame = pd.DataFrame({"day": pd.to_datetime(["2020-01-01", "2020-01-02"]), "x": [1, 2]})
    refused(lambda: make("Autoencoder").fit(frame), "column 'day' must be numeric")
    refused(
        lambda: make("Autoencoder").fit([["a", 1], ["b", 2]]), "X must be numeric; got 'a' at row 0, column 0"
    )
    cells = np.array([[1, 2], [3, "x"]], dtype=object)
    refused(lambda: make("Autoencoder").fit(cells), "got 'x' at row 1, column 1")
    refused(
        lambda: make("Autoencoder").fit(np.array([["1", "2"], ["3", "4"]])), "got text such as '1'", "astype"
    )
    refused(
        lambda: make("Autoencoder").fit(np.array([["2020-01-01"], ["2020-01-02"]], dtype="M8[D]")), "numeric"
    )


def test_rows_that_differ_in_length():
    refused(lambda: make("Autoencoder").fit([[1, 2], [3]]), "rows of one length")


def test_another_width_than_in_fit(fitted, rows):
    for method in READ:
        with pytest.raises(ValueError, match=r"X has 5 features, but .* is expecting 6 features"):
            getattr(fitted, method)(rows[:, :5])
    refused(lambda: fitted.inverse_transform(np.zeros((2, 5))), "(n_samples, 4)", "(2, 5)")
    refused(lambda: fitted.inverse_transform(np.zeros((0, 4))), "(0, 4)")
    refused(lambda: fitted.interpolate(rows[0], rows[0, :3]), "b must be one sample of 6 values")
    refused(lambda: fitted.transform(np.zeros((2, 3, 2))), "(6,)", "(3, 2)", "Resize")


def test_numbers_beyond_single_precision(fitted, rows):
    identifiers = np.column_stack([np.arange(20), np.arange(20) + 2**31])
    refused(
        lambda: make("Autoencoder").fit(identifiers), "column 1", "Drop the column if it is an identifier"
    )
    for value in (1e39, -1e300):
        spoiled = rows.copy()
        spoiled[3, 1] = value
        refused(
            lambda spoiled=spoiled: make("Autoencoder").fit(spoiled), "single precision", "row 3, column 1"
        )
        refused(lambda spoiled=spoiled: fitted.transform(spoiled), "single precision", "row 3, column 1")
    model = make("Autoencoder", scaling="standard").fit(rows * 1e-6)
    spoiled[3, 1] = 3e38
    refused(lambda: model.transform(spoiled), "finite when it is scaled", "row 3")


def test_values_outside_the_range_of_loss_or_output(rows):
    refused(
        lambda: make("Autoencoder", loss="binary_cross_entropy", scaling=None).fit(rows),
        "[0, 1]",
        "loss='binary_cross_entropy'",
        "Set scaling='minmax'",
    )
    refused(
        lambda: make("Autoencoder", output_activation="relu", scaling="standard").fit(rows),
        "output_activation='relu'",
    )
    refused(
        lambda: make("Autoencoder", output_activation="tanh", loss="binary_cross_entropy").fit(rows),
        "'sigmoid'",
    )
    model = make("Autoencoder", loss="binary_cross_entropy").partial_fit(rows)
    refused(lambda: model.partial_fit(10 * rows), "[0, 1]")


# ------------------------------------------------------------------ settings
SETTINGS = [
    ({"latent_dim": 0}, "latent_dim must be an integer >= 1; got 0"),
    ({"latent_dim": -1}, "got -1"),
    ({"latent_dim": 2.5}, "got 2.5"),
    ({"latent_dim": "3"}, "got '3'"),
    ({"latent_dim": True}, "got True"),
    ({"epochs": 0}, "epochs must be an integer >= 1; got 0"),
    ({"batch_size": 0}, "batch_size must be an integer >= 1; got 0"),
    ({"patience": 0}, "patience must be"),
    ({"learning_rate": 0}, "learning_rate must be a number > 0; got 0"),
    ({"learning_rate": float("nan")}, "learning_rate must be"),
    ({"weight_decay": -1}, "weight_decay must be"),
    ({"clip_norm": 0}, "clip_norm must be"),
    ({"validation_fraction": 1}, "validation_fraction must be"),
    ({"validation_fraction": None}, "validation_fraction must be a number >= 0 and < 1; got None"),
    ({"validation_fraction": "0.1"}, "got '0.1'"),
    ({"validation_fraction": float("nan")}, "got nan"),
    ({"tied_weights": "no"}, "tied_weights must be True or False; got 'no'"),
    ({"random_state": -1}, "random_state must be", "got -1", "Give for example 0"),
    ({"random_state": "a"}, "got 'a'"),
    ({"activation": ""}, "activation must be a known name; got ''"),
    ({"dropout": 1.0}, "dropout must be"),
    ({"hidden_dims": (8, 0)}, "got 0"),
    ({"hidden_dims": 8}, "hidden_dims must be a sequence of integers >= 1; got 8"),
    ({"hidden_dims": "88"}, "hidden_dims must be a sequence"),
    ({"depth": -1}, "depth must be an integer >= 0; got -1"),
    ({"activation": "rleu"}, "Did you mean 'relu'"),
    ({"latent_activation": "sigmiod"}, "latent_activation must be", "Did you mean 'sigmoid'"),
    ({"output_activation": "tahn"}, "output_activation must be", "Did you mean 'tanh'"),
    ({"loss": "squared_eror"}, "loss must be", "Did you mean 'squared_error'"),
    ({"loss": 3}, "loss must be a name or a Loss part; got 3"),
    ({"architecture": "densse"}, "Did you mean 'dense'"),
    ({"corruption": "maskin"}, "Did you mean 'masking'"),
    ({"corruption": "masking:2"}, "fraction of MaskingNoise must be"),
    ({"corruption": "masking:share=0.2"}, "corruption.share must be a setting of 'masking'"),
    ({"latent": "gausian"}, "Did you mean 'gaussian'"),
    ({"penalty": "contractiv"}, "Did you mean 'contractive'"),
    ({"penalty": ["l1", "l1"]}, "given once; got 'l1' twice"),
    ({"scaling": "standart"}, "Did you mean 'standard'"),
    ({"training": "layer_wise"}, "Did you mean 'layerwise'"),
    ({"optimizer": "adm"}, "Did you mean 'adam'"),
    ({"schedule": "cosin"}, "Did you mean 'cosine'"),
    ({"norm": "bach"}, "Did you mean 'batch'"),
    ({"device": "gpu"}, "device must be"),
    ({"input_shape": (2, 2)}, "as many values as a sample of X, 6; got (2, 2)"),
    ({"input_shape": 6}, "input_shape must be a sequence of integers >= 1; got 6"),
    ({"input_shape": "23"}, "input_shape must be a sequence"),
    ({"input_shape": (-2, -3)}, "got (-2, -3)"),
    ({"input_shape": (1.5, 4)}, "got (1.5, 4)"),
    ({"input_shape": ()}, "got ()"),
    # without effect, or against each other
    ({"channels": (4,)}, "channels must be left out for architecture='dense'", "Set hidden_dims"),
    ({"architecture": "conv", "hidden_dims": (4,)}, "hidden_dims must be left out", "Set channels"),
    ({"architecture": "conv", "tied_weights": True}, "tied_weights must be left out"),
    ({"architecture": "conv", "depth": 0}, "channels must be"),
    ({"depth": 3, "hidden_dims": (8, 8)}, "depth must equal the number of hidden_dims", "Leave depth out"),
    (
        {"architecture": Dense(hidden_dims=(8,)), "activation": "tanh"},
        "activation must be left out",
        "in the part",
    ),
    ({"penalty": "kl_sparsity"}, "penalty 'kl_sparsity'", "latent_activation='sigmoid'"),
    ({"penalty": "posterior_kl"}, "penalty 'posterior_kl'", "latent='gaussian'"),
    ({"penalty": "l0"}, "penalty 'l0'", "jumprelu"),
    ({"latent": "gaussian", "latent_activation": "tanh"}, "latent_activation must be None"),
    ({"latent": "gaussian", "tied_weights": True}, "tied_weights must be False"),
    ({"latent": "topk:9"}, "k of TopK must be at most latent_dim=4"),
    ({"training": "layerwise", "architecture": "conv"}, "architecture='dense'"),
    ({"training": "layerwise", "tied_weights": True}, "tied_weights must be False"),
    ({"latent": "noisy", "batch_size": 1}, "a batch must have at least 2 rows"),
    ({"norm": "batch", "batch_size": 1}, "a batch must have at least 2 rows"),
]


@pytest.mark.parametrize("case", SETTINGS, ids=lambda case: str(case[0])[:60])
def test_settings_out_of_range_or_without_effect(rows, case):
    settings, *texts = case
    refused(lambda: make("Autoencoder", **settings).fit(rows), *texts, error=InvalidParameterError)


KINDS = [
    ("UndercompleteAutoencoder", {"latent_dim": 6}, "narrower than the input; got 6 units for 6"),
    ("StackedAutoencoder", {"training": "end_to_end"}, "training must be set for StackedAutoencoder"),
    ("DenoisingAutoencoder", {"corruption": None}, "corruption must be set"),
    ("ContractiveAutoencoder", {"penalty": ()}, "penalty must be set"),
    ("VariationalAutoencoder", {"latent": "deterministic"}, "latent must be set"),
    ("VariationalAutoencoder", {"penalty": None}, "penalty must be set"),
    ("StochasticAutoencoder", {"latent": "deterministic"}, "latent must be set"),
    ("ConvolutionalAutoencoder", {"hidden_dims": (3,)}, "hidden_dims must be left out"),
]


@pytest.mark.parametrize(("kind", "settings", "text"), KINDS)
def test_what_would_make_a_kind_another_is_refused(rows, kind, settings, text):
    refused(lambda: make(kind, **settings).fit(rows), text, error=InvalidParameterError)


def test_unknown_parameters_are_python_s_and_scikit_learn_s(name):
    with pytest.raises(TypeError, match="latent_dimm"):
        getattr(diabolo, name)(latent_dimm=3)
    with pytest.raises(ValueError, match="Invalid parameter 'latent_dimm'"):
        make(name).set_params(latent_dimm=3)


def test_numbers_of_samples_and_steps(fitted, rows):
    for n in (0, -1, 2.5, "3"):
        refused(lambda n=n: fitted.sample(n), f"n must be an integer >= 1; got {n!r}")
    refused(lambda: fitted.sample(2, random_state=-1), "random_state must be", "got -1")
    for steps in (1, 2.5):
        refused(
            lambda steps=steps: fitted.interpolate(rows[0], rows[1], steps), "steps must be an integer >= 2"
        )


# ------------------------------------------------------------------ before and after fit
def test_before_fit_nothing_works(name, rows, tmp_path):
    model = make(name)
    calls = [lambda m=m: getattr(model, m)(rows) for m in READ]
    calls += [model.sample, model.diagram, model.get_feature_names_out, lambda: model.save(tmp_path / "x")]
    calls += [lambda: model.inverse_transform(rows), lambda: model.interpolate(rows[0], rows[1])]
    for call in calls:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call()
    assert not list(tmp_path.iterdir())


def test_a_fit_that_failed_does_not_count(rows):
    model = make("Autoencoder").fit(rows)
    refused(lambda: model.set_params(latent_dim=0).fit(rows), "latent_dim")
    with pytest.raises(NotFittedError):
        model.transform(rows)

    def fails(row, total):
        raise OSError("the progress bar broke")

    with pytest.raises(OSError, match="progress bar"):
        model.set_params(latent_dim=2).fit(rows, progress=fails)
    with pytest.raises(NotFittedError):
        model.transform(rows)


def test_a_single_row_cannot_be_normalised_over(rows):
    model = make("StochasticAutoencoder").partial_fit(rows)
    refused(lambda: model.partial_fit(rows[:1]), "a batch must have at least 2 rows")
    assert np.isfinite(model.transform(rows)).all()
    assert issubclass(InvalidDataError, ValueError)
