"""``train``: the model, the numbers, the config file, and what happens when it cannot go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Run, environment

import diabolo


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_train_says_the_numbers_side_by_side(run: Run, images: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    said = run("train", images, "-o", model, "--kind", "deep", *SMALL)
    assert said.code == 0, said.err
    for word in ("squared error per sample", "PCA, 4 components", "mean predictor", "R^2", str(model)):
        assert word in said.out
    assert "40 of 200 rows, held out at random (seed 0)" in said.out
    assert "deep: epoch 1/2" in said.err
    assert names(tmp_path) == ["m.safetensors"]


def test_json_is_all_there_is_on_stdout_and_true(run: Run, images: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    said = run("train", images, "-o", model, "--json", *SMALL)
    found = said.json
    estimator = diabolo.load(model)
    X = np.load(images) / np.float32(255)
    order = np.random.default_rng(0).permutation(200)
    test, train = X[np.sort(order[:40])], X[np.sort(order[40:])]
    assert found["squared_error"] == pytest.approx(estimator.reconstruction_error(test).mean(), rel=1e-5)
    assert found["mean_squared_error"] == pytest.approx(
        ((test - train.mean(0)) ** 2).sum((1, 2)).mean(), rel=1e-5
    )
    assert found["pca_squared_error"] < found["mean_squared_error"]
    assert (found["n_train"], found["n_test"], found["code_size"]) == (160, 40, 4)
    assert (found["kind"], found["epochs"], found["stopped_by"]) == ("deep", 2, "epochs")
    assert found["model"] == str(model)


def test_quiet_says_nothing(run: Run, images: Path, tmp_path: Path) -> None:
    said = run("train", images, "-o", tmp_path / "m.safetensors", "--quiet", *SMALL)
    assert (said.code, said.out, said.err) == (0, "", "")


def test_quiet_json_says_json(run: Run, images: Path, tmp_path: Path) -> None:
    said = run("train", images, "-o", tmp_path / "m.safetensors", "--quiet", "--json", *SMALL)
    assert said.json["epochs"] == 2
    assert said.err == ""


def test_parameters_reach_the_estimator(run: Run, images: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    words = ("--corruption", "masking:0.3+gaussian:0.1", "--tied-weights", "--activation", "tanh")
    said = run("train", images, "-o", model, "--kind", "denoising", *SMALL, *words)
    assert said.code == 0, said.err
    estimator = diabolo.load(model)
    assert type(estimator).__name__ == "DenoisingAutoencoder"
    assert estimator.latent_dim == 4
    assert tuple(estimator.hidden_dims) == (16,)
    assert estimator.tied_weights is True
    assert estimator.activation == "tanh"


def test_options_not_given_stay_at_the_kind_s_defaults(run: Run, table: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    run("train", table, "--label", "species", "-o", model, "--kind", "denoising", "--epochs", "1")
    got, default = diabolo.load(model), diabolo.DenoisingAutoencoder()
    for name in ("hidden_dims", "latent_dim", "learning_rate", "batch_size", "patience"):
        assert getattr(got, name) == getattr(default, name)


def test_flags_win_over_the_config_file(run: Run, images: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'data = "{images}"\nkind = "sparse"\noutput = "{tmp_path / "c.safetensors"}"\n'
        "epochs = 3\nlatent-dim = 5\nhidden_dims = [12]\nrandom_state = 1\ntest_fraction = 0.5\n"
    )
    said = run(
        "train", "--config", config, "--json", "--epochs", "1", "--kind", "deep", "--test-fraction", "0.1"
    )
    assert said.code == 0, said.err
    found = said.json
    assert (found["kind"], found["epochs"], found["n_test"]) == ("deep", 1, 20)
    estimator = diabolo.load(tmp_path / "c.safetensors")
    assert (estimator.latent_dim, tuple(estimator.hidden_dims), estimator.random_state) == (5, (12,), 1)


def test_unknown_key_in_the_config_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("latent_dmi = 3\n")
    said = run("train", "digits", "--config", tmp_path / "run.toml")
    assert said.code == 2
    assert "got 'latent_dmi'. Did you mean 'latent_dim'" in said.err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--latent-dim", "0"], 2, "latent_dim"),
        (["--corruption", "maskin:0.3"], 2, "Did you mean 'masking'"),
        (["--activation", "sigmiod"], 2, "Did you mean 'sigmoid'"),
        (["--epochs", "0"], 2, "epochs"),
        (["--dropout", "1.5"], 2, "dropout"),
        (["--label", "species"], 2, "label must be left out"),
    ],
)
def test_bad_values_are_wrong_usage(
    run: Run, images: Path, tmp_path: Path, words: list[str], code: int, text: str
) -> None:
    said = run("train", images, "-o", tmp_path / "m.safetensors", "--quiet", "--epochs", "1", *words)
    assert (said.code, said.out) == (code, "")
    assert text in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert names(tmp_path) == []


def test_source_that_does_not_exist(run: Run, tmp_path: Path) -> None:
    said = run("train", "digts", "-o", tmp_path / "m.safetensors")
    assert said.code == 1
    assert "Did you mean 'digits'" in said.err


@pytest.mark.parametrize("command", ["train", "compare"])
def test_nan_is_named_by_its_place_in_the_file(run: Run, tmp_path: Path, command: str) -> None:
    X = np.random.default_rng(0).random((30, 3))
    X[17, 1] = np.nan
    table = tmp_path / "x.csv"
    np.savetxt(table, X, delimiter=",", header="a,b,c", comments="")
    output = tmp_path / {"train": "m.safetensors", "compare": "c.md"}[command]
    said = run(command, table, "-o", output, "--epochs", "1", "--quiet")
    assert (said.code, said.out) == (1, "")
    assert "got NaN at row 17, column 'b' (position 1)" in said.err
    np.savez(tmp_path / "x.npz", X=X[:10], X_test=X[10:])
    said = run(command, tmp_path / "x.npz", "-o", output, "--epochs", "1", "--quiet")
    assert "got NaN at row 7, column 1" in said.err
    assert names(tmp_path) == ["x.csv", "x.npz"]


def test_nan_is_one_sentence(run: Run, tmp_path: Path) -> None:
    X = np.random.default_rng(0).random((30, 4))
    X[3, 2] = np.nan
    np.save(tmp_path / "x.npy", X)
    said = run("train", tmp_path / "x.npy", "-o", tmp_path / "m.safetensors", "--quiet", *SMALL)
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert names(tmp_path) == ["x.npy"]


def test_debug_shows_the_traceback(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("train", "digts", "-o", tmp_path / "m.safetensors")
    assert "Traceback" not in run(*words).err
    assert "Traceback" in run(*words, "--debug").err
    monkeypatch.setenv("DIABOLO_DEBUG", "1")
    said = run(*words)
    assert "Traceback" in said.err
    assert said.err.splitlines()[-1].startswith("error: ")
    assert said.code == 1


def test_a_place_that_cannot_be_written_is_told_before_training(
    run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        pytest.fail("training began")

    monkeypatch.setattr(diabolo.DeepAutoencoder, "fit", never)
    said = run("train", images, "-o", tmp_path / "none" / "m.safetensors")
    assert said.code == 2
    assert "--output must be in a folder that exists" in said.err
    (tmp_path / "note.txt").write_text("mine")
    said = run("train", images, "-o", tmp_path / "note.txt")
    assert said.code == 1
    assert "--output must be a new file or a model to replace" in said.err
    assert (tmp_path / "note.txt").read_text() == "mine"
    said = run("train", images, "-o", tmp_path / "m.safetensors", "--report", tmp_path / "note.txt")
    assert said.code == 2
    assert "--report must be a folder" in said.err


@pytest.mark.skipif(not Path("/proc/1").exists(), reason="needs a folder in which nobody can write")
def test_a_folder_that_refuses(run: Run, images: Path) -> None:
    said = run("train", images, "-o", "/proc/m.safetensors", *SMALL)
    assert said.code == 2
    assert "--output must be in a folder that you may write to; got '/proc' (" in said.err
    assert said.err.endswith("). Choose another folder.\n")


def test_an_older_model_is_replaced(run: Run, images: Path, model: Path, tmp_path: Path) -> None:
    place = tmp_path / "m.safetensors"
    place.write_bytes(model.read_bytes())
    assert run("train", images, "-o", place, "--kind", "sparse", "--quiet", *SMALL).code == 0
    assert type(diabolo.load(place)).__name__ == "SparseAutoencoder"


def test_report(run: Run, images: Path, tmp_path: Path) -> None:
    said = run(
        "train", images, "-o", tmp_path / "m.safetensors", "--report", tmp_path / "r", "--json", *SMALL
    )
    assert said.code == 0, said.err
    page = Path(said.json["report"])
    assert page.is_file()
    assert page.parent == tmp_path / "r"
    assert f"diabolo train {images}" in page.read_text()


def test_a_report_that_cannot_be_made_is_told_before_training(
    run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diabolo.cli.page.find_spec", lambda name: None)
    said = run("train", images, "-o", tmp_path / "m.safetensors", "--report", tmp_path / "r")
    assert said.code == 1
    assert "The report needs matplotlib" in said.err
    assert names(tmp_path) == []


def test_a_report_that_fails_does_not_take_the_model_with_it(
    run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diabolo.report.page.write_report", full)
    said = run("train", images, "-o", tmp_path / "m.safetensors", "--report", tmp_path / "r", *SMALL)
    assert said.code == 1
    assert f"The model is in {tmp_path / 'm.safetensors'}.\nerror: " in said.err
    diabolo.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_what_the_machine_lacks_is_one_sentence(
    run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def lack(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(diabolo.DeepAutoencoder, "save", lack)
    said = run("train", images, "-o", tmp_path / "m.safetensors", "--quiet", *SMALL)
    assert (said.code, said.out) == (1, "")
    assert said.err.count("\n") == 1
    assert names(tmp_path) == []


def test_warnings_are_one_line_each(
    run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warnings

    from diabolo.errors import CollapseWarning

    fit = diabolo.DeepAutoencoder.fit

    def warn(self: object, *given: object, **named: object) -> object:
        warnings.warn("2 of 4 units carry nothing.", CollapseWarning, stacklevel=2)
        return fit(self, *given, **named)

    monkeypatch.setattr(diabolo.DeepAutoencoder, "fit", warn)
    words = ("train", images, "-o", tmp_path / "m.safetensors", *SMALL)
    said = run(*words)
    assert said.code == 0
    assert "warning: 2 of 4 units carry nothing.\n" in said.err
    assert run(*words, "--quiet").err == ""


def _interrupt_while_training(
    command: Iterable[str], folder: Path, signals: Iterable[signal.Signals] = (signal.SIGINT,)
) -> tuple[int, str, str]:
    """Start a training, press Ctrl-C after some epochs, and return its exit code and what it said."""
    with subprocess.Popen(
        [sys.executable, "-m", "diabolo", *command],
        cwd=folder,
        env={**environment(), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if ": epoch 1/" in line:
                break
        time.sleep(0.3)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.05)
        out, err = process.communicate(timeout=120)
    return process.returncode, out, said + err


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_ctrl_c_keeps_the_best_weights_and_says_where(images: Path, tmp_path: Path) -> None:
    words = ["train", str(images), "-o", "m.safetensors", *SMALL, "--epochs", "100000", "--patience", "none"]
    code, out, err = _interrupt_while_training(words, tmp_path)
    assert code == 1
    assert out == ""
    assert "the best weights so far are in m.safetensors." in err
    assert "Traceback" not in err
    assert names(tmp_path) == ["m.safetensors"]
    model = diabolo.load(tmp_path / "m.safetensors")
    assert model.history_.stopped_by == "interrupt"
    assert np.isfinite(model.reconstruct(np.load(images) / np.float32(255))).all()


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
@pytest.mark.parametrize("signals", [[signal.SIGINT] * 6, [signal.SIGTERM, signal.SIGINT] * 3])
def test_ctrl_c_pressed_six_times_keeps_them_too(
    images: Path, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    words = ["train", str(images), "-o", "m.safetensors", *SMALL, "--epochs", "100000", "--patience", "none"]
    code, _, err = _interrupt_while_training(words, tmp_path, signals)
    assert code in (1, *(-number for number in signals))  # the last may meet an interpreter that ends
    assert "the best weights so far are in m.safetensors." in err
    assert names(tmp_path) == ["m.safetensors"]
    assert diabolo.load(tmp_path / "m.safetensors").history_.stopped_by == "interrupt"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, KeyError])
def test_ctrl_c_before_the_first_weights_leaves_nothing(
    run: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException]
) -> None:
    def at_once(*_: object, **__: object) -> None:
        raise interrupt

    monkeypatch.setattr(diabolo.DeepAutoencoder, "fit", at_once)
    said = run("train", images, "-o", tmp_path / "m.safetensors", "--quiet", *SMALL)
    assert said.code == 1
    assert said.err.startswith("error: ")
    assert names(tmp_path) == []


def test_a_second_ctrl_c_while_saving_leaves_the_old_model(
    run: Run, images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "m.safetensors"
    place.write_bytes(model.read_bytes())

    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", pressed)
    monkeypatch.setattr(os, "replace", pressed)
    said = run("train", images, "-o", place, "--quiet", *SMALL)
    assert said.code == 1
    assert said.err == "error: interrupted.\n"
    assert place.read_bytes() == model.read_bytes()
    assert names(tmp_path) == ["m.safetensors"]
