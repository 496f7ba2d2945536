"""Commands that use a model file: each end to end, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, environment, train_to

import diabolo
from diabolo.applications import AnomalyDetector, SignalDetector
from diabolo.data import load as load_data


@pytest.fixture
def X(images: Path) -> np.ndarray:  # noqa: N802 - the name of the field
    return np.load(images) / np.float32(255)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_encode(run: Run, model: Path, images: Path, tmp_path: Path, suffix: str, X: np.ndarray) -> None:
    place = tmp_path / f"codes{suffix}"
    said = run("encode", model, images, "-o", place, "--json")
    assert said.code == 0, said.err
    assert said.json["shape"] == [200, 4]
    estimator = diabolo.load(model)
    codes = load_data(place)
    np.testing.assert_allclose(codes.X, estimator.transform(X), rtol=1e-6, atol=1e-7)
    if suffix != ".npy":
        assert codes.feature_names == tuple(estimator.get_feature_names_out())


def test_encode_and_decode_are_the_reconstruction(
    run: Run, model: Path, images: Path, tmp_path: Path, X: np.ndarray
) -> None:
    codes, back, direct = (tmp_path / name for name in ("codes.npy", "back.npy", "direct.npy"))
    assert run("encode", model, images, "-o", codes).code == 0
    assert run("decode", model, codes, "-o", back).code == 0
    said = run("reconstruct", model, images, "-o", direct)
    assert said.out == f"{direct}: reconstructions of 200 rows of digits.npy, 200 x 8 x 8\n"
    np.testing.assert_allclose(np.load(back), np.load(direct), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.load(direct), diabolo.load(model).reconstruct(X), rtol=1e-5, atol=1e-6)


def test_a_table_keeps_its_columns(run: Run, table_model: Path, table: Path, tmp_path: Path) -> None:
    place = tmp_path / "rows.csv"
    said = run("reconstruct", table_model, table, "--label", "species", "-o", place)
    assert said.code == 0, said.err
    rows = load_data(place)
    assert rows.X.shape == (60, 5)
    assert rows.feature_names == ("a", "b", "c", "d", "e")


def changed(table: Path, place: Path, change: Callable[[list[str]], list[str]]) -> Path:
    """Write the table anew with the cells of each row changed."""
    rows = [line.split(",") for line in table.read_text().splitlines()]
    place.write_text("\n".join(",".join(change(row)) for row in rows) + "\n")
    return place


@pytest.mark.parametrize("command", ["encode", "reconstruct", "evaluate"])
@pytest.mark.parametrize("labels", ["words", "numbers"])
def test_columns_are_found_by_name(
    run: Run, table_model: Path, table: Path, tmp_path: Path, command: str, labels: str
) -> None:
    """The column of labels may still be there, and columns may stand in another order."""
    codes = {"x": "0", "y": "1"} if labels == "numbers" else {}
    mixed = changed(
        table, tmp_path / "mixed.csv", lambda row: [codes.get(cell, cell) for cell in reversed(row)]
    )
    found = []
    for data, words in ((table, ["--label", "species"]), (mixed, [])):
        place = [] if command == "evaluate" else ["-o", tmp_path / "out.csv"]
        said = run(command, table_model, data, *words, *place, "--json")
        assert said.code == 0, said.err
        found.append((tmp_path / "out.csv").read_text() if place else said.json["squared_error"])
        note = "mixed.csv: column 'species' is not among the model's features and is left out\n"
        assert said.err.startswith("" if words else note)
        assert ("species" in said.err) == (not words)
        assert "valid feature names" not in said.err
    assert found[0] == found[1]


def test_the_baseline_s_columns_are_found_by_name(run: Run, table_model: Path, table: Path) -> None:
    said = run("evaluate", table_model, table, "--baseline", table, "--json")
    assert said.code == 0, said.err
    assert said.err.count("is left out") == 2
    assert said.json["pca_fitted_on"] == "60 rows of table.csv"


@pytest.mark.parametrize(
    ("words", "last", "text"),
    [
        ([], "f", "must have the column 'e' among its features; got 'a', 'b', 'c', 'd', 'f' and 1 more. Add"),
        (["--label", "e"], "e", "must have the column 'e' among its features"),
    ],
)
def test_a_column_that_is_not_there_is_named(
    run: Run, table_model: Path, table: Path, tmp_path: Path, words: list[str], last: str, text: str
) -> None:
    other = changed(table, tmp_path / "t.csv", lambda row: [last if cell == "e" else cell for cell in row])
    said = run("encode", table_model, other, *words, "-o", tmp_path / "codes.npy")
    assert (said.code, said.out) == (1, "")
    assert text in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [other]


def test_a_model_without_names_takes_a_table_by_its_width(run: Run, table: Path, tmp_path: Path) -> None:
    rows = load_data(table, label="species").X
    np.save(tmp_path / "rows.npy", rows)
    model = train_to(tmp_path / "m.safetensors", tmp_path / "rows.npy")
    assert not hasattr(diabolo.load(model), "feature_names_in_")
    numbers = changed(table, tmp_path / "t.csv", lambda row: [*row[:-1], "0" if row[-1] in "xy" else "y"])
    place = tmp_path / "codes.npy"
    said = run("encode", model, numbers, "-o", place)
    assert said.code == 1
    assert "DATA must hold samples of 5 values, as the model was trained on; got 6" in said.err
    assert "a table's column of labels is named with --label" in said.err
    assert run("encode", model, numbers, "--label", "y", "-o", place).code == 0
    np.testing.assert_allclose(np.load(place), diabolo.load(model).transform(rows), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("command", "n"), [("reconstruct", 200), ("sample", 3)])
def test_pictures(run: Run, model: Path, images: Path, tmp_path: Path, command: str, n: int) -> None:
    from PIL import Image

    given = [images] if command == "reconstruct" else ["-n", "3"]
    for place in (tmp_path / "pictures", tmp_path / "sheet.png"):
        said = run(command, model, *given, "-o", place)
        assert said.code == 0, said.err
        assert "became black to white" in said.err
    assert load_data(tmp_path / "pictures").X.shape == (n, 8, 8)
    across = -(-(n**0.5) // 1)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 2 + across * 10


def test_samples_follow_the_seed(run: Run, model: Path, tmp_path: Path) -> None:
    drawn = []
    for index, seed in enumerate((0, 0, 1)):
        place = tmp_path / f"{index}.npy"
        assert run("sample", model, "-n", "5", "--random-state", seed, "-o", place, "--quiet").code == 0
        drawn.append(np.load(place))
    assert drawn[0].shape == (5, 8, 8)
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_rows_are_no_pictures(run: Run, table_model: Path, tmp_path: Path) -> None:
    said = run("sample", table_model, "-o", tmp_path / "x.png")
    assert said.code == 2
    assert "to be written as pictures; got (5,)" in said.err


def test_evaluate(run: Run, model: Path, images: Path, X: np.ndarray) -> None:
    said = run("evaluate", model, images, "--json")
    assert said.code == 0, said.err
    found = said.json
    estimator = diabolo.load(model)
    assert found["squared_error"] == pytest.approx(estimator.reconstruction_error(X).mean(), rel=1e-5)
    assert found["r2"] == pytest.approx(estimator.score(X), rel=1e-5)
    assert found["diagnostics"]["code_size"] == 4
    assert "pca_squared_error" not in found
    assert "--baseline" in said.err


def test_evaluate_beside_pca(run: Run, model: Path, images: Path) -> None:
    said = run("evaluate", model, images, "--baseline", images)
    assert said.code == 0, said.err
    for word in ("PCA, 4 components", "mean predictor", "PCA fitted on", "active units", "Jacobian"):
        assert word in said.out


def test_evaluate_takes_the_source_s_own_test_split(
    run: Run, model: Path, tmp_path: Path, X: np.ndarray
) -> None:
    np.savez(tmp_path / "both.npz", X=X[:150], X_test=X[150:])
    found = run("evaluate", model, tmp_path / "both.npz", "--json").json
    assert found["tested_on"] == "50 test rows of both.npz"
    assert found["pca_fitted_on"] == "the 150 training rows of both.npz"
    found = run("evaluate", model, tmp_path / "both.npz", "--json", "--split", "all").json
    assert found["n_test"] == 200
    assert "pca_fitted_on" not in found


def test_info(run: Run, model: Path, table_model: Path) -> None:
    said = run("info", model)
    assert said.code == 0, said.err
    for word in ("deep", "8 x 8 (64 values)", "2 epochs", "latent_dim", "squared_error"):
        assert word in said.out
    found = run("info", table_model, "--json").json
    assert (found["kind"], found["n_features"]) == ("variational", 5)
    assert found["history"]["epochs"] == 2
    assert found["recipe"]["latent_dim"] == 4
    assert found["bytes"] == table_model.stat().st_size


def test_info_of_a_detector_of_series(run: Run, images: Path, tmp_path: Path) -> None:
    small = diabolo.Autoencoder(latent_dim=2, epochs=1)
    series = np.sin(np.arange(900.0) / 5) + 0.1 * np.random.default_rng(0).normal(size=900)
    fitted = SignalDetector(detector=AnomalyDetector(estimator=small, random_state=0), window=20).fit(series)
    place = fitted.save(tmp_path / "s.safetensors")
    said = run("info", place, "--json")
    assert said.code == 0, said.err
    assert (said.json["kind"], said.json["window"], said.json["n_channels"]) == ("signal detector", 20, 1)
    assert said.json["threshold"] == fitted.detector_.threshold_
    assert "detector of anomalies in series" in run("info", place).out
    said = run("detect", "score", place, images, "-o", tmp_path / "s.csv")
    assert said.code == 1
    assert "a detector of series. Use it in Python, with SignalDetector.load." in said.err


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_diagram_of_a_model(run: Run, model: Path, tmp_path: Path, suffix: str) -> None:
    place = tmp_path / f"picture{suffix}"
    assert run("diagram", model, "-o", place).code == 0
    assert place.read_bytes().lstrip()[:4] in (b"<svg", b"\x89PNG", b"<?xm")
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(
    "words",
    [
        ["--kind", "deep", "--features", "30", "--hidden-dims", "20,10", "--latent-dim", "3"],
        ["--kind", "convolutional", "--features", "12,12", "--channels", "4,8"],
        ["--kind", "convolutional", "--channels", "4"],
        ["--kind", "stacked", "--features", "20"],
        ["--kind", "variational", "--features", "20"],
    ],
)
def test_diagram_of_a_kind(run: Run, tmp_path: Path, words: list[str]) -> None:
    place = tmp_path / "picture.svg"
    said = run("diagram", *words, "-o", place, "--json")
    assert said.code == 0, said.err
    assert said.err == ""
    assert said.json == {"output": str(place)}
    assert "<svg" in place.read_text()


def test_a_model_s_settings_cannot_be_changed_in_its_drawing(run: Run, model: Path, tmp_path: Path) -> None:
    said = run("diagram", model, "--latent-dim", "3", "-o", tmp_path / "x.svg")
    assert said.code == 2
    assert "must be left as they are; got latent_dim" in said.err
    said = run("diagram", model, "--kind", "deep", "-o", tmp_path / "x.svg")
    assert "got both" in said.err


@pytest.mark.parametrize("command", ["encode", "evaluate", "info"])
@pytest.mark.parametrize("content", [None, b"", b"no model at all", b"\x80\x04\x95pickle"])
def test_what_is_no_model_is_told(
    run: Run, images: Path, tmp_path: Path, command: str, content: bytes | None
) -> None:
    path = tmp_path / "m.safetensors"
    if content is not None:
        path.write_bytes(content)
    words = {"encode": [images, "-o", tmp_path / "codes.npy"], "evaluate": [images], "info": []}[command]
    said = run(command, path, *words)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: ")
    assert str(path) in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "codes.npy").exists()


def test_wrong_width(run: Run, model: Path, table: Path, tmp_path: Path) -> None:
    said = run("encode", model, table, "--label", "species", "-o", tmp_path / "codes.npy")
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["encode", "reconstruct", "evaluate"])
def test_data_of_another_width_is_one_sentence(
    run: Run, table_model: Path, images: Path, tmp_path: Path, command: str
) -> None:
    place = [] if command == "evaluate" else ["-o", tmp_path / "out.npy"]
    said = run(command, table_model, images, *place)
    assert said.code == 1
    assert "DATA must hold samples of 5 values, as the model was trained on; got 8 x 8" in said.err


def test_a_reader_that_goes_away_is_no_traceback(model: Path) -> None:
    """As in `diabolo info MODEL | head -1`, with a pipe that nobody reads from any more."""
    with subprocess.Popen(
        [sys.executable, "-m", "diabolo", "info", str(model)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        code = process.wait(60)
    assert code == 1
    assert said == b""


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_samples_have_the_names_of_the_columns_learned_from(
    run: Run, table_model: Path, table: Path, tmp_path: Path, suffix: str
) -> None:
    codes, drawn, decoded = tmp_path / "z.npy", tmp_path / f"s{suffix}", tmp_path / f"d{suffix}"
    assert run("encode", table_model, table, "-o", codes).code == 0
    assert run("sample", table_model, "-o", drawn).code == 0
    assert run("decode", table_model, codes, "-o", decoded).code == 0
    for path in (drawn, decoded):
        assert load_data(path).feature_names == tuple("abcde")
    assert run("evaluate", table_model, drawn).code == 0
