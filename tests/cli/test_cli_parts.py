"""The pieces that commands share, each by itself: readers of options, config files, files written."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diabolo.cli import inputs, output
from diabolo.cli.config import read_config
from diabolo.cli.console import duration, number, plain
from diabolo.cli.options import READERS, SourceOptions, sizes
from diabolo.cli.outcomes import sentence
from diabolo.cli.train import _SETTINGS
from diabolo.data import Dataset
from diabolo.errors import (
    DataFileError,
    DownloadError,
    InvalidDataError,
    InvalidParameterError,
    MissingExtraError,
    ModelFileError,
)


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("latent_dim", "30", 30),
        ("latent_dim", 30, 30),
        ("latent_dim", 30.0, 30),
        ("latent_dim", "none", None),
        ("learning_rate", "1e-3", 1e-3),
        ("learning_rate", 1, 1.0),
        ("hidden_dims", "512,256", (512, 256)),
        ("hidden_dims", "(512, 256)", (512, 256)),
        ("hidden_dims", [512, 256], (512, 256)),
        ("hidden_dims", 64, (64,)),
        ("hidden_dims", "none", None),
        ("hidden_dims", "", ()),
        ("corruption", "gaussian:0.1+masking:0.3", "gaussian:0.1+masking:0.3"),
        ("corruption", "None", None),
        ("tied_weights", True, True),
        ("random_state", "7", 7),
        ("channels", "16,32", (16, 32)),
    ],
)
def test_parameters_are_read(name: str, given: Any, read: Any) -> None:
    got = READERS[name](given)
    assert got == read
    assert type(got) is type(read)


@pytest.mark.parametrize(
    ("name", "given", "rule"),
    [
        ("latent_dim", 2.5, "a whole number or none"),
        ("latent_dim", True, "a whole number or none"),
        ("latent_dim", [3], "a whole number or none"),
        ("dropout", "none", "a number"),
        ("dropout", "much", "a number"),
        ("tied_weights", "yes", "true or false"),
        ("loss", 3, "text"),
        ("hidden_dims", [1.5], "whole numbers joined by commas, such as 512,256 or none"),
    ],
)
def test_what_is_no_such_value_is_refused(name: str, given: Any, rule: str) -> None:
    with pytest.raises(InvalidParameterError, match=rf"^{name} must be {rule}; got "):
        READERS[name](given)


def test_sizes() -> None:
    assert sizes("x", None) is None
    assert sizes("x", "28,28") == sizes("x", "28x28") == (28, 28)
    with pytest.raises(InvalidParameterError, match=r"^x must be whole numbers from 1 up"):
        sizes("x", "28,0")


def test_config_takes_dashes_and_underscores(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'data = "digits"\nlatent-dim = 3\nhidden_dims = [8, 4]\ncorruption = "none"\nimage_size = [8, 8]\n'
    )
    own, parameters = read_config(path, _SETTINGS)
    assert own == {"data": "digits", "image_size": "8,8"}
    assert parameters == {"latent_dim": 3, "hidden_dims": (8, 4), "corruption": None}


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        (
            "latnt_dim = 3",
            InvalidParameterError,
            "A setting must be a known name; got 'latnt_dim'. Did you mean 'latent_dim'",
        ),
        ("knd = 'deep'", InvalidParameterError, "Did you mean 'kind'"),
        ("[train]\nepochs = 3", InvalidParameterError, "got 'train'"),
        ("kind = 3", InvalidParameterError, "kind must be text; got 3. Put it in quotation marks."),
        ("test_fraction = 2", InvalidParameterError, "test_fraction must be a number from 0 up to"),
        ("epochs = ", DataFileError, "run.toml must be a TOML file; got an error in it"),
    ],
)
def test_config_says_what_is_wrong(tmp_path: Path, text: str, error: type[Exception], match: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(error, match=match):
        read_config(path, _SETTINGS)


def test_config_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="--config must be a file that can be read"):
        read_config(tmp_path / "none.toml", _SETTINGS)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataFileError, match=r"must be a TOML file"):
        read_config(tmp_path / "bytes.toml", _SETTINGS)


def test_numbers_for_persons() -> None:
    assert [number(v) for v in (3.14159, 12345.6, None, float("nan"), 0.0)] == [
        "3.142",
        "12,346",
        "-",
        "-",
        "0",
    ]
    assert [duration(v) for v in (4.24, 75, 7260)] == ["4.2 s", "1 min 15 s", "2 h 1 min"]


def test_json_knows_no_nan_and_no_numpy() -> None:
    value = {
        "a": np.float32(0.5),
        "b": np.array([1.0, np.nan]),
        "c": Path("x"),
        "d": (np.int64(3), True, None),
    }
    assert plain(value) == {"a": 0.5, "b": [1.0, None], "c": "x", "d": [3, True, None]}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InvalidDataError("X must be\nfinite."), "X must be finite."),
        (MissingExtraError("Writing .parquet", "pyarrow", "tables"), "Run: pip install 'diabolo[tables]'"),
        (DownloadError("mnist could not be fetched."), "mnist could not be fetched."),
        (MemoryError(), "The memory must hold the data and the model"),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.npy"),
            "x.npy must have room; got 'No space left on device'. Free some space",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            "/x must be open to you; got 'Permission denied'. Change its permissions",
        ),
        (
            OSError("9 requested and 3 written"),
            "What is read or written must be in a place that works; got '9 requested and 3 written'.",
        ),
        (RuntimeError("boom"), "RuntimeError: boom. Run again with --debug to see where."),
        (KeyboardInterrupt(), "interrupted."),
    ],
)
def test_every_error_is_one_sentence_with_a_way_out(error: BaseException, said: str) -> None:
    assert said in sentence(error)
    assert "\n" not in sentence(error)


def _data(n: int = 10, n_test: int | None = None) -> Dataset:
    X = np.arange(n * 2.0).reshape(n, 2)
    X_test = None if n_test is None else -np.ones((n_test, 2))
    return Dataset(X=X, y=np.arange(n), X_test=X_test, name="it")


def test_the_source_s_own_test_split_is_taken() -> None:
    split = inputs.train_and_test(_data(n_test=3), None, None)
    assert (len(split.X), len(split.X_test)) == (10, 3)
    assert split.told == "the 3 test rows of it"


def test_rows_are_held_out_by_the_seed() -> None:
    splits = [inputs.train_and_test(_data(), None, seed) for seed in (None, 0, 1)]
    assert [s.told for s in splits[:2]] == ["2 of 10 rows, held out at random (seed 0)"] * 2
    assert np.array_equal(splits[0].X_test, splits[1].X_test)
    assert not np.array_equal(splits[1].X_test, splits[2].X_test)
    split = splits[2]
    assert split.y is not None
    assert split.y_test is not None
    assert sorted([*split.y, *split.y_test]) == list(range(10))
    assert np.array_equal(split.X[:, 0], 2 * split.y)
    assert np.array_equal(split.X_test[:, 0], 2 * split.y_test)


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="random_state must be a whole number from 0 up; got -1"):
        inputs.train_and_test(_data(), None, -1)


def test_a_fraction_given_wins_over_the_source_s_split() -> None:
    split = inputs.train_and_test(_data(n_test=3), 0.5, 0)
    assert (len(split.X), len(split.X_test)) == (5, 5)
    assert "the training rows themselves" in inputs.train_and_test(_data(), 0.0, 0).told


def test_too_few_rows_to_hold_any_out() -> None:
    with pytest.raises(
        InvalidDataError, match="it must have rows to train on beside 1 to test on; got 1 in all"
    ):
        inputs.train_and_test(_data(1), None, 0)


def test_pick() -> None:
    both = _data(n_test=3)
    assert [len(inputs.pick(both, split, "test")[0]) for split in (None, "train", "test", "all")] == [
        3,
        10,
        3,
        13,
    ]
    assert inputs.pick(both, None, "train")[1] == "10 training rows of it"
    assert inputs.pick(_data(), None, "test")[1] == "10 rows of it"
    with pytest.raises(InvalidParameterError, match="which has no test split"):
        inputs.pick(_data(), "test", "train")
    with pytest.raises(InvalidParameterError, match="Did you mean 'test'"):
        inputs.pick(both, "tst", "train")


def test_pixels_of_8_bits_become_numbers_from_0_to_1(tmp_path: Path) -> None:
    for dtype, top in ((np.uint8, 1.0), (np.int64, 255.0)):
        np.save(tmp_path / "x.npy", np.array([[0, 255], [51, 102]], dtype=dtype))
        X = inputs.load_data(str(tmp_path / "x.npy"), SourceOptions()).X
        assert X.max() == top
    assert inputs.load_data("digits", SourceOptions()).X.max() == 16


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_rows_come_back_from_every_format(tmp_path: Path, suffix: str) -> None:
    from diabolo.data import load

    rows = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    path = tmp_path / f"rows{suffix}"
    output.write_rows(path, rows, ["a", 'b "2"', "c,d"])
    back = load(path)
    assert np.array_equal(back.X.astype(np.float32), rows)
    if suffix != ".npy":
        assert back.feature_names == ("a", 'b "2"', "c,d")
    assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044 & ~_umask()
    assert list(tmp_path.iterdir()) == [path]


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4), (3, 3, 4)])
def test_pictures_come_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    from diabolo.data import load

    samples = np.rint(np.random.default_rng(0).random((11, *shape)) * 255).astype(np.float32) / 255
    folder = tmp_path / "pictures"
    folder.mkdir()  # an empty one may be filled
    told = output.write_samples(folder, samples)
    assert told == "values from 0 to 1 became black to white"
    assert sorted(p.name for p in folder.iterdir())[0] == "00.png"
    back = load(folder).X.reshape(samples.shape)
    assert np.array_equal(back, np.rint(samples * 255))


def test_other_ranges_are_stretched_and_said(tmp_path: Path) -> None:
    from PIL import Image

    samples = np.array([[[-8.0, 0.0]], [[4.0, 8.0]]])
    assert output.write_samples(tmp_path / "x.png", samples) == "values from -8 to 8 became black to white"
    with Image.open(tmp_path / "x.png") as picture:
        sheet = np.asarray(picture)
    assert sheet.shape == (1 + 4, 2 * 2 + 6)
    assert sheet[2].tolist() == [255, 255, 0, 128, 255, 255, 191, 255, 255, 255]


def test_rows_are_no_pictures() -> None:
    with pytest.raises(InvalidParameterError, match=r"got \(5,\). Write .npy or .csv or .parquet instead"):
        output.check_pictures(Path("x.png"), (5,))
    output.check_pictures(Path("x.npy"), (5,))


@pytest.mark.parametrize("path", ["x.npy", "x.csv", "x.parquet", "x.png", "x"])
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step fails as a full disk does; what was there before stays as it was."""
    target = tmp_path / path
    if path != "x":
        target.write_text("before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        output.write_samples(target, np.zeros((2, 3, 3)))
    assert [p.name for p in tmp_path.iterdir()] == ([] if path == "x" else [path])
    if path != "x":
        assert target.read_text() == "before"


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x.parquet"])
def test_a_device_that_takes_no_more_bytes(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes go to the system's device that is always full, through each format's own writer."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    rows = np.zeros((20000, 3))
    make = output.tempfile.mkdtemp

    def room_on_a_full_disk(**options: Any) -> str:
        room = Path(make(**options))
        (room / name).symlink_to(full)
        return str(room)

    monkeypatch.setattr(output.tempfile, "mkdtemp", room_on_a_full_disk)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - Python and Arrow word it differently
        output.write_rows(tmp_path / name, rows)
    assert f"{name} must have room; got" in sentence(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_places_are_checked_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match=r"--output must be in a folder that exists; got .*none"):
        output.check_place(tmp_path / "none" / "x.npy")
    with pytest.raises(InvalidParameterError, match="--output must name a file; got the folder"):
        output.check_place(tmp_path, output.TABLES[:0] or None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(InvalidParameterError, match="--output must be a new or an empty folder"):
        output.check_place(tmp_path / "full", ("",))
    assert output.check_place(tmp_path / "new", ("",)) == tmp_path / "new"


def test_a_folder_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "tmpx7"))

    monkeypatch.setattr(output.tempfile, "TemporaryFile", refuse)
    with pytest.raises(InvalidParameterError) as caught:
        output.check_place(tmp_path / "x.npy")
    assert str(caught.value) == (
        f"--output must be in a folder that you may write to; got {str(tmp_path)!r} (Permission denied). "
        "Choose another folder."
    )


def test_a_name_as_long_as_the_system_allows(tmp_path: Path) -> None:
    name = "x" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 4) + ".npy"
    output.write_rows(output.check_place(tmp_path / name, output.TABLES), np.eye(2))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(
        InvalidParameterError, match=r"that can be looked up; got '.{53}' \(File name too long"
    ):
        output.check_place(tmp_path / f"x{name}")


def test_a_file_that_is_no_model_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(
        ModelFileError, match=r"--output must be a new file or a model to replace; got .*thesis.txt"
    ):
        output.check_model_place(path)
    assert path.read_text() == "years of work"
