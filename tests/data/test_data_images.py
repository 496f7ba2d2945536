import numpy as np
import pytest
from PIL import Image

from diabolo.data import load
from diabolo.data.folders import ImageFolderSource
from diabolo.errors import DataFileError, InvalidParameterError, MissingExtraError, SkippedWarning

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF", ".PGM"])
def test_grey(tmp_path, suffix):
    save(tmp_path / f"a{suffix}", GREY)
    data = load(tmp_path)
    assert data.X.shape == (1, 5, 7)
    assert data.X.dtype == np.uint8
    np.testing.assert_array_equal(data.X[0], GREY)
    assert data.y is None
    assert data.name == tmp_path.name
    np.testing.assert_array_equal(load(tmp_path / f"a{suffix}").X, data.X)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_colour(tmp_path, suffix):
    save(tmp_path / f"a{suffix}", COLOUR)
    X = load(tmp_path).X
    assert X.shape == (1, 3, 5, 7)
    np.testing.assert_array_equal(X[0].transpose(1, 2, 0), COLOUR)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_lossy(tmp_path, suffix):
    smooth = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    save(tmp_path / f"a{suffix}", np.stack([smooth] * 3, axis=-1), quality=95)
    X = load(tmp_path).X
    assert X.shape == (1, 3, 32, 32)
    assert np.abs(X[0].astype(int) - smooth).max() < 16


def test_modes(tmp_path):
    folder = tmp_path / "grey"
    save(folder / "a.png", GREY)
    Image.fromarray(GREY > 99).save(folder / "b.png")
    Image.fromarray(np.stack([GREY, GREY], axis=-1), "LA").save(folder / "c.png")
    X = load(folder).X
    np.testing.assert_array_equal(X, [GREY, np.where(GREY > 99, 255, 0), GREY])

    folder = tmp_path / "colour"
    Image.fromarray(np.dstack([COLOUR, GREY]), "RGBA").save(save(folder / "a.png", GREY))
    save(folder / "b.png", GREY)
    flat = np.full((5, 7, 3), (10, 200, 30), np.uint8)
    Image.fromarray(flat).quantize(4).save(folder / "c.png")
    X = load(folder).X
    np.testing.assert_array_equal(X.transpose(0, 2, 3, 1), [COLOUR, np.dstack([GREY] * 3), flat])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_pictures_keep_their_type(tmp_path, dtype):
    deep = (RNG.random((6, 8)) * 60_000).astype(dtype)
    save(tmp_path / "a.tif", deep)
    data = load(tmp_path)
    assert data.X.dtype == dtype
    np.testing.assert_array_equal(data.X[0], deep)
    small = load(tmp_path, image_size=(3, 4)).X
    assert small.shape == (1, 3, 4)
    assert small.dtype == dtype
    assert abs(small.mean(dtype=float) - deep.mean(dtype=float)) < 6_000
    save(tmp_path / "b.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(
        DataFileError, match=r"one depth; got the mode .* in .*a\.tif and L in .*b\.png. Convert"
    ):
        load(tmp_path)


def test_order_is_natural_and_other_files_are_passed_over(tmp_path):
    for i in (10, 2, 1, 33):
        save(tmp_path / f"img{i}.png", np.full((2, 2), i, np.uint8))
    save(tmp_path / ".hidden.png", GREY)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    assert load(tmp_path).X[:, 0, 0].tolist() == [1, 2, 10, 33]


@pytest.mark.parametrize("suffix", [".gif", ".jp2", ".tga"])
def test_other_formats_that_pillow_reads(tmp_path, suffix):
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
    save(tmp_path / f"a{suffix}", pixels)
    assert (pixels == load(tmp_path).X).all()


def test_pictures_that_are_not_read_are_counted(tmp_path):
    save(tmp_path / "a.png", GREY)
    for name in ("b.HEIC", "c.heic", "d.svg", "e.txt"):
        (tmp_path / name).write_text("")
    said = r"kinds that are not read are left out: 2 \.heic, 1 \.svg\. Convert"
    for read in (load, ImageFolderSource):
        with pytest.warns(SkippedWarning, match=said):
            assert len(read(tmp_path).X if read is load else read(tmp_path)) == 1


def test_sub_folders_are_classes(tmp_path):
    for name, value in (("s10", 10), ("s2", 2), ("s1", 1)):
        for k in range(2):
            save(tmp_path / name / f"{k}.pgm", np.full((2, 3), value + k, np.uint8))
    save(tmp_path / "__MACOSX" / "a.png", GREY)
    (tmp_path / "README").write_text("not a picture")
    data = load(tmp_path)
    assert data.y.tolist() == ["s1", "s1", "s2", "s2", "s10", "s10"]
    assert data.X[:, 0, 0].tolist() == [1, 2, 2, 3, 10, 11]
    save(tmp_path / "loose.png", GREY)
    with pytest.raises(
        DataFileError, match=r"got both, loose\.png and s1/. Move the loose pictures to a class"
    ):
        load(tmp_path)


def test_sizes(tmp_path):
    save(tmp_path / "a.png", GREY)
    save(tmp_path / "b.png", GREY[:3])
    said = r"one size; got 5 x 7 in .*a\.png and 3 x 7 in .*b\.png. image_size=\(height, width\) resizes"
    with pytest.raises(DataFileError, match=said):
        load(tmp_path)
    assert load(tmp_path, image_size=(4, 6)).X.shape == (2, 4, 6)
    flat = save(tmp_path / "flat" / "c.png", np.full((8, 8), 77, np.uint8)).parent
    np.testing.assert_array_equal(load(flat, image_size=(3, 5)).X, np.full((1, 3, 5), 77))


@pytest.mark.parametrize("size", [(0, 4), (4,), 4, (4.0, 4), "44", (-1, 2)])
def test_bad_image_size(tmp_path, size):
    save(tmp_path / "a.png", GREY)
    with pytest.raises(
        InvalidParameterError, match=r"image_size must be two whole numbers from 1 up.*; got "
    ):
        load(tmp_path, image_size=size)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "a.png", GREY, exif=exif)
    X = load(tmp_path).X[0]
    # What the EXIF standard says lies at the picture's first row and column.
    wanted = {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: GREY.T[:, ::-1],
        7: GREY.T[::-1, ::-1],
        8: GREY.T[::-1],
    }
    np.testing.assert_array_equal(X, wanted[orientation])


@pytest.mark.parametrize("cut", [0, 5, 40, -200])
def test_a_damaged_picture_is_named(tmp_path, cut):
    save(tmp_path / "a.png", RNG.integers(0, 256, (50, 50), dtype=np.uint8))
    whole = save(tmp_path / "b.png", RNG.integers(0, 256, (50, 50), dtype=np.uint8)).read_bytes()
    (tmp_path / "b.png").write_bytes(whole[:cut])
    with pytest.raises(DataFileError, match=r"b\.png must (hold data|be a picture); got "):
        load(tmp_path)


def test_a_picture_that_is_none(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(DataFileError, match=r"a\.png must be a picture; got one that is damaged"):
        load(tmp_path / "a.png")


def test_without_pillow(tmp_path, missing):
    save(tmp_path / "a.png", GREY)
    missing("PIL")
    with pytest.raises(MissingExtraError, match=r"Reading .*a\.png needs pillow.*diabolo\[images\]"):
        load(tmp_path)


def test_a_palette_of_greys_is_grey(tmp_path):
    save(tmp_path / "a.png", GREY)
    Image.fromarray(GREY).save(tmp_path / "b.gif")
    Image.fromarray(GREY).convert("P").save(tmp_path / "c.png")
    assert (load(tmp_path).X == GREY).all()
    colours = Image.fromarray(GREY).convert("P")
    colours.putpalette([channel for k in range(256) for channel in (k, 255 - k, 7)])
    colours.save(tmp_path / "d.png")
    assert load(tmp_path).X.shape == (4, 3, *GREY.shape)


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".webp"])
def test_of_several_frames_the_first_is_read_and_that_is_said(tmp_path, suffix):
    frames = [Image.fromarray(np.full((5, 7), shade, np.uint8)) for shade in (10, 200)]
    save(tmp_path / "one.png", GREY)
    frames[0].save(tmp_path / f"two{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.warns(
        SkippedWarning, match=rf"a picture with several frames or pages, .*two\{suffix}: only the"
    ):
        data = load(tmp_path)
    last = data.X[1] if data.X.ndim == 3 else data.X[1, 0]
    np.testing.assert_array_equal(last, np.full((5, 7), 10))
    with pytest.warns(SkippedWarning, match="several frames"):
        ImageFolderSource(tmp_path)


def test_what_follows_the_first_frame_may_be_damaged(tmp_path):
    frames = [Image.fromarray(np.full((50, 70), shade, np.uint8)) for shade in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    whole = (tmp_path / "a.gif").read_bytes()
    second = whole.rindex(b",")  # begins a frame
    (tmp_path / "a.gif").write_bytes(whole[: second + 4])
    with pytest.warns(SkippedWarning, match="several frames"):
        assert (load(tmp_path).X == 10).all()


def test_a_preview_beside_a_photo_is_no_second_picture(tmp_path):
    photo, preview = (Image.fromarray(np.full((32, 32, 3), shade, np.uint8)) for shade in (10, 200))
    photo.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    assert load(tmp_path).X.max() < 20
