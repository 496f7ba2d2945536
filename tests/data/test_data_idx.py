import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diabolo.data import load
from diabolo.errors import DataFileError, InvalidParameterError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
TRAIN, TEST = np.arange(24, dtype="u1").reshape(4, 3, 2), np.ones((2, 3, 2), "u1")
Y = np.array([3, 1, 2, 0], "u1")


def idx(array):
    head = struct.pack(f">HBB{array.ndim}I", 0, CODES[array.dtype.str[1:]], array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


ARRAYS = st.sampled_from(sorted(CODES)).flatmap(
    lambda code: hnp.arrays(np.dtype(code), hnp.array_shapes(min_dims=2, max_dims=4, max_side=4))
)


@settings(deadline=None, max_examples=50)
@given(X=ARRAYS, packed=st.booleans(), name=st.sampled_from(["a-idx3-ubyte", "a.idx", "a", "a.bin", "a.gz"]))
def test_round_trip(tmp_path_factory, X, packed, name):
    path = tmp_path_factory.mktemp("idx") / name
    path.write_bytes(gzip.compress(idx(X)) if packed else idx(X))
    data = load(path)
    np.testing.assert_array_equal(data.X, X)
    assert data.X.dtype == X.dtype
    assert data.X.dtype.isnative
    assert data.X.flags.writeable


@settings(deadline=None, max_examples=50)
@given(X=ARRAYS, packed=st.booleans(), draw=st.data())
def test_any_cut_is_told(tmp_path_factory, X, packed, draw):
    path = tmp_path_factory.mktemp("idx") / "a-idx3-ubyte.gz"
    whole = gzip.compress(idx(X)) if packed else idx(X)
    path.write_bytes(whole[: draw.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataFileError, match=r"a-idx3-ubyte\.gz must .*; got "):
        load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must hold data; got an empty file. Fetch or write it again."),
        (b"\0\0\x08", "magic number of an idx file; got the bytes 00 00 08"),
        (b"hello", "magic number of an idx file; got the bytes 68 65 6c 6c"),
        (b"\0\0\x07\x01\0\0\0\0", "magic number of an idx file; got the bytes 00 00 07 01"),
        (b"\0\0\x08\0", "magic number of an idx file"),
        (b"\0\0\x08\x02\0\0\0\1", "the sizes of its 2 axes; got 4 bytes of them"),
        (idx(TRAIN)[:-1], "must hold 24 bytes of data, as its header says; got 23. Fetch or copy it again."),
        (idx(TRAIN) + b"x", "must hold 24 bytes of data, as its header says; got more"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "must hold 7922816.* bytes of data, as its header says; got 0"),
        (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"a", "at most 32 axes; got 255"),
        (idx(TRAIN[:0]), "at least one sample"),
        (idx(Y), r"one row for each sample; got the shape \(4,\)"),
        (
            gzip.compress(idx(TRAIN), mtime=0)[:-9],
            "must be a whole gzip file; got one that is damaged or cut short",
        ),
        (gzip.compress(idx(TRAIN), mtime=0)[:10] + b"\xff" * 40, "must be a whole gzip file"),
    ],
)
def test_damaged_files(tmp_path, content, said):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=said):
        load(path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_the_folder_of_four(tmp_path, suffix, mark):
    pack = gzip.compress if suffix else bytes
    for name, array in {
        "train-images#idx3-ubyte": TRAIN,
        "train-labels#idx1-ubyte": Y,
        "t10k-images#idx3-ubyte": TEST,
        "t10k-labels#idx1-ubyte": Y[:2],
    }.items():
        (tmp_path / (name.replace("#", mark) + suffix)).write_bytes(pack(idx(array)))
    (tmp_path / "README.txt").write_text("not data")
    data = load(tmp_path)
    for got, wanted in ((data.X, TRAIN), (data.y, Y), (data.X_test, TEST), (data.y_test, Y[:2])):
        np.testing.assert_array_equal(got, wanted)
    assert data.name == tmp_path.name
    assert data.sample_shape == (3, 2)
    with pytest.raises(
        InvalidParameterError, match=r"label must be left out for .*; got 'a'. It is meant for"
    ):
        load(tmp_path, label="a")
    with pytest.raises(InvalidParameterError, match=r"image_size must be left out for .*meant for pictures"):
        load(tmp_path, image_size=(2, 2))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"train-labels-idx1-ubyte": Y}, "must hold train-images-idx3-ubyte beside its labels"),
        ({"t10k-images-idx3-ubyte": TEST}, "must hold train-images-idx3-ubyte; got t10k-images"),
        (
            {"train-images-idx3-ubyte": TRAIN, "train-labels-idx1-ubyte": Y[:3]},
            r"train-labels-idx1-ubyte must hold one label for each of the 4 samples; got the shape \(3,\)",
        ),
        (
            {"train-images-idx3-ubyte": TRAIN, "t10k-images-idx3-ubyte": TEST[:, :2]},
            r"Samples of X_test must have the shape \(3, 2\)",
        ),
    ],
)
def test_folders_that_do_not_fit(tmp_path, files, said):
    for name, array in files.items():
        (tmp_path / name).write_bytes(idx(array))
    with pytest.raises(DataFileError, match=said):
        load(tmp_path)


def test_a_folder_without_labels_or_test_split(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(TRAIN))
    data = load(tmp_path)
    assert (data.y, data.X_test, data.y_test) == (None, None, None)
