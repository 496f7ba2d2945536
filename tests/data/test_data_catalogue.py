import gzip
import hashlib
import io
import struct

import numpy as np
import pytest

from diabolo.data import catalogue, known_names, load
from diabolo.data.catalogue import CATALOGUE, data_homes
from diabolo.errors import DataFileError, DownloadError, InvalidParameterError, MissingExtraError


def small_mnist(folder, first=0):
    """Write four files of MNIST's names with one training picture and one for testing."""
    folder.mkdir(parents=True)
    for file in CATALOGUE["mnist"].files:
        shape = (1, 28, 28) if "images" in file.name else (1,)
        body = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes([first] * np.prod(shape))
        (folder / file.name).write_bytes(gzip.compress(body))


def faces(**variables):
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, variables)
    return stream.getvalue()


def test_names():
    assert known_names() == ["digits", "fashion-mnist", "mnist", "olivetti"]
    for name, entry in CATALOGUE.items():
        assert entry.name == name
        assert entry.about.endswith(".")
        assert entry.licence.endswith(".")
        for file in entry.files:
            assert file.url.startswith("http")
            assert file.url.endswith(file.name)
            assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32


def test_digits(offline):
    data = load("digits")
    assert data.X.shape == (1797, 8, 8)
    assert data.X.dtype == np.float64
    assert (data.X.min(), data.X.max()) == (0, 16)
    assert np.bincount(data.y).min() > 170
    assert data.name == "digits"


def test_homes_are_searched_in_order(tmp_path, offline):
    assert data_homes() == [tmp_path / "cache" / "diabolo"]
    offline.setenv("DIABOLO_DATA", str(tmp_path / "env"))
    homes = [tmp_path / "given", tmp_path / "env", tmp_path / "cache" / "diabolo"]
    assert data_homes(tmp_path / "given") == homes
    for i, home in reversed(list(enumerate(homes))):
        small_mnist(home / "mnist", first=i)
        data = load("mnist", data_home=str(homes[0]))
        assert (data.X[0, 0, 0], data.y[0], data.X_test[0, 0, 0], data.y_test[0]) == (i,) * 4
        assert data.name == "mnist"


def test_a_damaged_local_copy_is_named(tmp_path, offline):
    small_mnist(tmp_path / "mnist")
    bad = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    bad.write_bytes(bad.read_bytes()[:-12])
    with pytest.raises(DataFileError, match=r"t10k-images-idx3-ubyte\.gz must be a whole gzip file"):
        load("mnist", data_home=tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
@pytest.mark.parametrize("folder", ["olivetti", "faces", "."])
def test_olivetti_lies_at_most_one_folder_down(tmp_path, offline, folder, dtype):
    pictures = np.random.default_rng(0).integers(0, 256, (400, 64, 64)).astype(np.uint8)
    columns = np.stack([picture.ravel(order="F") for picture in pictures], axis=1)
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "olivettifaces.mat").write_bytes(faces(faces=columns.astype(dtype)))
    data = load("olivetti", data_home=tmp_path)
    np.testing.assert_array_equal(data.X, pictures)
    assert data.X.dtype == np.uint8
    assert np.bincount(data.y).tolist() == [10] * 40


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (faces(faces=np.zeros((3, 4))), r"variable faces of shape \(4096, 400\); got the shape \(3, 4\)"),
        (faces(other=np.zeros((3, 4))), "got no such variable"),
        (b"<html>gone</html>", "must be a MATLAB file of version 5; got one that is damaged"),
        (b"", "got an empty file"),
    ],
)
def test_olivetti_that_is_none(tmp_path, offline, content, said):
    (tmp_path / "olivettifaces.mat").write_bytes(content)
    with pytest.raises(DataFileError, match=said):
        load("olivetti", data_home=tmp_path)


@pytest.fixture
def origin(offline, tmp_path):
    """A folder that stands for the internet; pooch copies from it and checks as it would."""
    import pooch

    asked = []
    web = tmp_path / "web"

    def retrieve(url, known_hash, fname, path, progressbar):
        asked.append((url, known_hash, progressbar))
        if not (web / fname).exists():
            raise ConnectionError("Name or service not known\nsecond line")
        content = (web / fname).read_bytes()
        if known_hash and known_hash != "sha256:" + hashlib.sha256(content).hexdigest():
            raise ValueError(f"SHA256 hash of downloaded file ({fname}) does not match the known hash")
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(content)
        return str(path / fname)

    offline.setattr(pooch, "retrieve", retrieve)
    web.mkdir()
    return web, asked


def test_download(tmp_path, origin, monkeypatch):
    web, asked = origin
    small_mnist(web / "files", first=5)
    entry = CATALOGUE["mnist"]
    pinned = []
    for file in entry.files:
        content = (web / "files" / file.name).read_bytes()
        (web / file.name).write_bytes(content)
        pinned.append(catalogue.RemoteFile(file.name, file.url, hashlib.sha256(content).hexdigest()))
    fake = catalogue.replace(entry, files=tuple(pinned))
    monkeypatch.setattr(catalogue, "CATALOGUE", {**CATALOGUE, "mnist": fake})
    assert load("mnist", data_home=tmp_path / "home").X[0, 0, 0] == 5
    assert [(url, sha) for url, sha, _ in asked] == [(f.url, f"sha256:{f.sha256}") for f in pinned]
    assert not any(progressbar for *_, progressbar in asked)
    assert sorted(p.name for p in (tmp_path / "home" / "mnist").iterdir()) == sorted(f.name for f in pinned)
    load("mnist", data_home=tmp_path / "home")
    assert len(asked) == 4, "a second call fetches nothing"


def test_a_download_with_other_bytes(tmp_path, origin):
    web, _ = origin
    (web / "train-images-idx3-ubyte.gz").write_bytes(b"other")
    with pytest.raises(DownloadError, match=r"ossci-datasets.*train-images.* does not match the known hash"):
        load("mnist", data_home=tmp_path / "home")


def test_no_network(tmp_path, origin):
    said = (
        r"^http://fashion-mnist\.s3.*/train-images-idx3-ubyte\.gz must be reachable "
        r"and give the expected file; "
        r"got: Name or service not known. Try again later, or put train-images-idx3-ubyte\.gz into "
        r".*cache/diabolo/fashion-mnist by hand\.$"
    )
    with pytest.raises(DownloadError, match=said) as caught:
        load("fashion-mnist")
    assert isinstance(caught.value, OSError)


def test_olivetti_is_pinned_by_its_content(tmp_path, origin):
    web, asked = origin
    (web / "olivettifaces.mat").write_bytes(b"<html>moved</html>")
    said = r"https://cs\.nyu\.edu/.*olivettifaces\.mat must give the data set olivetti; got another .*by hand"
    with pytest.raises(DownloadError, match=said):
        load("olivetti", data_home=tmp_path / "home")
    assert not (tmp_path / "home" / "olivetti" / "olivettifaces.mat").exists()
    (web / "olivettifaces.mat").write_bytes(faces(faces=np.zeros((4096, 400), np.uint8)))
    assert load("olivetti", data_home=tmp_path / "home").X.shape == (400, 64, 64)
    assert [sha for _, sha, _ in asked] == [None, None]


def test_without_pooch(tmp_path, offline, missing):
    missing("pooch")
    small_mnist(tmp_path / "mnist")
    assert load("mnist", data_home=tmp_path).n_samples == 1
    with pytest.raises(MissingExtraError, match=r"Downloading olivetti .* needs pooch.*diabolo\[download\]"):
        load("olivetti")
    with pytest.raises(MissingExtraError, match=r"put olivettifaces\.mat into .*olivetti by hand"):
        load("olivetti", data_home=tmp_path)


def test_options_without_effect_are_refused(offline):
    with pytest.raises(InvalidParameterError, match="label must be left out for mnist; got 'a'"):
        load("mnist", label="a")
    with pytest.raises(InvalidParameterError, match="image_size must be left out for mnist"):
        load("mnist", image_size=(8, 8))


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_mnists(real_data, offline, name):
    data = load(name, data_home=real_data)
    assert (data.X.shape, data.X_test.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert data.X.dtype == data.X_test.dtype == np.uint8
    assert (data.X.min(), data.X.max()) == (0, 255)
    assert np.bincount(data.y_test).sum() == 10000
    assert set(data.y.tolist()) == set(range(10))
    for file in CATALOGUE[name].files:
        assert hashlib.sha256((real_data / name / file.name).read_bytes()).hexdigest() == file.sha256
    np.testing.assert_array_equal(load(real_data / name).X_test, data.X_test)


@pytest.mark.data
def test_the_real_olivetti(real_data, offline):
    data = load("olivetti", data_home=real_data)
    assert data.X.shape == (400, 64, 64)
    assert data.X.dtype == np.uint8
    mean = data.X.mean(axis=0)
    # A face is alike left and right, not top and bottom: rows and columns were not exchanged.
    assert np.corrcoef(mean.ravel(), mean[:, ::-1].ravel())[0, 1] > 0.9
    assert np.corrcoef(mean.ravel(), mean[::-1].ravel())[0, 1] < 0.7
    # Pictures of one person are nearer to each other than to the next person's.
    X = data.X.reshape(40, 10, -1).astype(float)
    within = X.var(axis=1).mean()
    assert within < 0.5 * X.reshape(400, -1).var(axis=0).mean()
