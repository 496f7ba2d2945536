"""``diabolo detect`` on images: pictures of several sizes, scans, and what is written of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, _exit_code

from diabolo.applications import AnomalyMap

Image = pytest.importorskip("PIL.Image")

MEMBER = ("--kind", "denoising", "--epochs", "1", "--hidden-dims", "16", "--latent-dim", "8")
SMALL = (*MEMBER, "--random-state", "0", "--false-alarm-rate", "0.3")


def picture(generator: np.random.Generator, bad: bool) -> np.ndarray:
    height, width = generator.integers(17, 30, 2)
    pixels = 128 + 30 * np.sin(np.arange(width) / 2) + generator.normal(0, 4, (height, width))
    if bad:
        pixels[5:11, 4:12] = 255
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes, eight good ones and two with a white patch."""
    generator, path = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for name, n in (("good", 8), ("patch", 2)):
        (path / name).mkdir()
        for k in range(n):
            Image.fromarray(picture(generator, name == "patch")).save(path / name / f"{k}.png")
    return path


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diabolo.cli import main

    path = tmp_path_factory.mktemp("map") / "map.safetensors"
    code: list[int] = []
    with _exit_code(code):
        main(["detect", "fit", str(folder), "--normal", "good", *SMALL, "-o", str(path), "-q"])
    assert code == [0]
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_maps_of_pictures(run: Run, model: Path, folder: Path, tmp_path: Path) -> None:
    words = ("--normal", "good", "-o", tmp_path / "maps", "--report", tmp_path / "page", "--json")
    said = run("detect", "map", model, folder, *words)
    assert said.code == 0, said.err
    assert "maps: 2/10 images" in said.err
    lines = table(tmp_path / "maps" / "images.csv")
    assert [line["image"] for line in lines] == [
        *(f"good/{k}.png" for k in range(8)),
        "patch/0.png",
        "patch/1.png",
    ]
    assert said.json["labels"]["n_anomalies"] == 2
    assert said.json["labels"]["auc_roc"] == 1.0
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count("<img") == 2 * 10
    assert page.index("patch/0.png, the image") < page.index("good/0.png, the image")
    assert "2 labelled anomalies and 8 normal images" in page
    fitted = AnomalyMap.load(model)
    pixels = np.asarray(Image.open(folder / "patch" / "0.png"))
    heat = fitted.heatmap([pixels.astype(np.float32) / np.float32(255)])[0]
    mask = np.asarray(Image.open(tmp_path / "maps" / "masks" / "patch" / "0.png"))
    np.testing.assert_array_equal(mask > 0, heat > fitted.pixel_threshold_)
    assert int(lines[8]["area"]) == (mask > 0).sum()
    overlay = np.asarray(Image.open(tmp_path / "maps" / "overlays" / "patch" / "0.png")).astype(int)
    assert overlay.shape == (*pixels.shape, 3)
    assert (overlay[7, 7, 0] - overlay[7, 7, 2]) > 100  # the patch is red
    first = next(line for line in table(tmp_path / "maps" / "regions.csv") if line["image"] == "patch/0.png")
    place = int(first["peak_row"]), int(first["peak_column"])
    assert heat[place] == heat.max() == pytest.approx(float(first["peak"]), rel=1e-6)


def test_sub_folders_that_are_all_learned_from_are_named(run: Run, folder: Path, tmp_path: Path) -> None:
    fit = ("detect", "fit", folder, *SMALL, "-o", tmp_path / "map.safetensors")
    said = " ".join(run(*fit).err.split())
    assert "images of all 2 sub-folders are learned from as good ones, 'good', 'patch'; --normal NAME" in said
    assert "--normal NAME" not in run(*fit, "--normal", "good").err
    fit = ("detect", "fit", folder / "good", *SMALL, "-o", tmp_path / "map.safetensors")
    assert "--normal NAME" not in run(*fit).err


def test_threshold_and_info_of_a_map(run: Run, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "map.safetensors"
    copy.write_bytes(model.read_bytes())
    said = run("detect", "threshold", copy, "--value", "7")
    assert said.code == 0, said.err
    assert AnomalyMap.load(copy).threshold_ == 7
    said = run("detect", "threshold", copy, "--contamination", "0.1")
    assert said.code == 2
    assert "by --false-alarm-rate or --value" in said.err
    assert run("info", copy, "--json").json["threshold"] == 7
    assert "when fitted; the threshold above is what holds" in " ".join(run("info", copy).out.split())


def test_a_map_and_a_detector_are_told_apart(run: Run, model: Path, folder: Path, tmp_path: Path) -> None:
    said = run("detect", "score", model, folder, "-o", tmp_path / "s.csv")
    assert said.code == 1
    assert "a map of images. Use it with 'diabolo detect map'" in said.err


@pytest.mark.parametrize("option", [["--trim", "0.1"], ["--stream"], ["--report", "page"], ["--label", "y"]])
def test_options_without_effect_are_refused(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("detect", "fit", folder, *SMALL, *option)
    assert said.code == 2
    assert f"{option[0]} must be left out for a map of images; got {' '.join(option)}. Leave it" in said.err


def test_a_broken_picture_is_named_and_nothing_is_left(run: Run, model: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(picture(np.random.default_rng(1), False)).save(pictures / "a.png")
    (pictures / "b.png").write_bytes((pictures / "a.png").read_bytes()[:90])
    said = run("detect", "map", model, pictures, "-o", tmp_path / "maps")
    assert said.code == 1
    assert "b.png" in said.err
    assert sorted(place.name for place in tmp_path.iterdir()) == ["pictures"]


def test_masks_lie_on_the_scan(run: Run, tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    generator = np.random.default_rng(0)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in "ab":
        voxels = generator.normal(size=(20, 18, 4)).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, affine), scans / f"{name}.nii.gz")
    model = tmp_path / "map.safetensors"
    said = run("detect", "fit", scans / "a.nii.gz", *SMALL, "-o", model)
    assert said.code == 0, said.err
    assert "holds for slices of this scan, not for other scans" in said.err
    said = run("detect", "fit", scans, *SMALL, "-o", model)
    assert said.code == 0, said.err
    assert "slices of this scan" not in said.err
    said = run("detect", "map", model, scans, "-o", tmp_path / "maps", "--json")
    assert said.code == 0, said.err
    assert [line["image"] for line in table(tmp_path / "maps" / "images.csv")][:2] == ["a:0", "a:1"]
    mask = nib.load(tmp_path / "maps" / "masks" / "a_mask.nii.gz")
    np.testing.assert_allclose(mask.affine, affine)
    assert mask.shape == (20, 18, 4)
    assert (tmp_path / "maps" / "overlays" / "b.png").exists()


def test_scans_with_other_axes_are_named(run: Run, tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    generator = np.random.default_rng(0)
    turned = np.array([[0, 0, 4.0, 0], [0, 3, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]])
    for name, affine in (("a", np.eye(4)), ("b", np.eye(4)), ("c", turned), ("d", turned)):
        (tmp_path / f"scans-{name in 'cd'}").mkdir(exist_ok=True)
        voxels = generator.normal(size=(20, 18, 4)).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / f"scans-{name in 'cd'}" / f"{name}.nii.gz")
    model = tmp_path / "map.safetensors"
    said = run("detect", "fit", tmp_path / "scans-False", *SMALL, "-o", model)
    assert (said.code, "slices" in said.err) == (0, False), said.err
    said = run("detect", "map", model, tmp_path / "scans-False", "-o", tmp_path / "same")
    assert (said.code, "columns" in said.err) == (0, False), said.err
    said = run("detect", "map", model, tmp_path / "scans-True", "-o", tmp_path / "maps")
    assert said.code == 0, said.err
    assert "run to RAS in the scans of the map, but not in 2 scans, 'c', 'd' (SAR): slices in" in said.err
    np.testing.assert_allclose(nib.load(tmp_path / "maps" / "masks" / "c_mask.nii.gz").affine, turned)
    (tmp_path / "scans-True" / "d.nii.gz").replace(tmp_path / "scans-False" / "d.nii.gz")
    said = run("detect", "fit", tmp_path / "scans-False", *SMALL, "-o", model)
    assert "do not run alike in all scans, but RAS in 'b' and SAR in 'd': slices lie" in said.err


def test_pictures_of_another_depth_are_refused(run: Run, model: Path, folder: Path, tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    for place in (folder / "good").iterdir():
        pixels = np.asarray(Image.open(place)).astype(np.uint16) * 257
        Image.fromarray(pixels).save(deep / place.name)
    said = run("detect", "map", model, deep, "-o", tmp_path / "maps")
    assert said.code == 1
    assert (
        "IMAGES must be stored with 8 bits per value, as those that the map was fitted on; got more"
        in said.err
    )
    other = tmp_path / "map.safetensors"
    assert run("detect", "fit", deep, *SMALL, "-o", other).code == 0
    said = run("detect", "map", other, folder, "-o", tmp_path / "maps")
    assert "IMAGES must be stored with more than 8 bits per value" in said.err
    assert run("detect", "map", other, deep, "-o", tmp_path / "maps").code == 0
    wider = tmp_path / "wider"
    wider.mkdir()
    for place in deep.iterdir():  # the same numbers
        Image.fromarray(np.asarray(Image.open(place)).astype(np.int32)).save(wider / f"{place.stem}.tif")
    assert run("detect", "map", other, wider, "-o", tmp_path / "more").code == 0


def test_one_volume_of_several_and_voxels_that_are_no_numbers(run: Run, tmp_path: Path) -> None:
    nib = pytest.importorskip("nibabel")
    voxels = np.random.default_rng(0).normal(size=(20, 18, 6, 2)).astype(np.float32)
    voxels[0, 0, :, 1] = np.nan
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "times.nii.gz")
    model = tmp_path / "map.safetensors"
    fit = ("detect", "fit", tmp_path / "times.nii.gz", *SMALL, "-o", model)
    said = run(*fit)
    assert said.code != 0
    assert "volume must be" in " ".join(said.err.split())
    said = run(*fit, "--volume", "1")
    assert said.code != 0
    assert "must hold finite voxels" in " ".join(said.err.split())
    said = run(*fit, "--volume", "1", "--fill", "0")
    assert said.code == 0, said.err
    said = run(
        "detect", "map", model, tmp_path / "times.nii.gz", "--volume", "0", "-o", tmp_path / "maps", "--json"
    )
    assert said.code == 0, said.err
    assert said.json["n"] == 6


def test_loose_x_rays_are_an_image_each(run: Run, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    generator = np.random.default_rng(0)
    folder = tmp_path / "x-rays"
    folder.mkdir()
    for k in range(6):
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        one.SeriesInstanceUID, one.StudyInstanceUID = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
        one.Modality = "CR"
        one.Rows, one.Columns = 20, 18
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 0
        one.PixelData = generator.integers(0, 4000, (20, 18), dtype=np.uint16).tobytes()
        one.save_as(folder / f"patient-{k}.dcm", enforce_file_format=True)
    model = tmp_path / "map.safetensors"
    said = run("detect", "fit", folder, *SMALL, "--false-alarm-rate", "0.5", "-o", model, "--json")
    assert said.code == 0, said.err
    assert said.json["n_train"] == 6
    said = run("detect", "map", model, folder, "-o", tmp_path / "maps", "--json")
    assert said.code == 0, said.err
    images = [line["image"] for line in table(tmp_path / "maps" / "images.csv")]
    assert images == [f"patient-{k}" for k in range(6)]
