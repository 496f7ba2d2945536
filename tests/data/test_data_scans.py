import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.pixels.processing import apply_modality_lut, apply_presentation_lut  # noqa: E402
from pydicom.uid import (  # noqa: E402
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    generate_uid,
)

from diabolo.data import Scan, find_scans, load, read_scan, write_map, write_mask  # noqa: E402
from diabolo.errors import (  # noqa: E402
    DataFileError,
    InvalidDataError,
    InvalidParameterError,
    MissingExtraError,
)

RNG = np.random.default_rng(0)
VOXELS = RNG.integers(-1000, 1000, (4, 5, 6), dtype=np.int16)  # (i, j, k)
# turned about an axis that is none of the scanner's, voxels of 1.5 x 2 x 3 mm
ANGLE = 0.3
OBLIQUE = np.array(
    [
        [1.5 * np.cos(ANGLE), -2 * np.sin(ANGLE), 0, -10],
        [1.5 * np.sin(ANGLE), 2 * np.cos(ANGLE), 0, 20],
        [0, 0, 3, -30],
        [0, 0, 0, 1],
    ]
)


def save(path, voxels, affine=OBLIQUE, slope=None, kind=nibabel.Nifti1Image, endianness="<"):
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(voxels.dtype)
    image = kind(voxels, affine, header)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    image.to_filename(path)
    return path


def slice_of(k, tmp_path, name=None, syntax=ExplicitVRLittleEndian, pixels=None, **fields):
    """Write slice k of a CT that lies obliquely: rows run to the back-left, columns to the feet."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    uid = generate_uid(entropy_srcs=["slice", str(k), str(fields.get("SeriesInstanceUID"))])
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = uid
    data.SpecificCharacterSet = "ISO_IR 100"
    data.PatientName, data.PatientID, data.PatientSex = "Müller^Jane", "4711", "F"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    data.Modality, data.SeriesNumber, data.InstanceNumber = "CT", 7, 50 - k
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.WindowCenter, data.SmallestImagePixelValue = 40, 0
    data.Rows, data.Columns, data.SamplesPerPixel = 3, 4, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelSpacing, data.SliceThickness = [2.0, 0.5], 5.0
    data.ImageOrientationPatient = [0.6, 0.8, 0, 0, 0, -1]
    # the normal, rows x columns, is (-0.8, 0.6, 0); steps of 5 mm along it
    data.ImagePositionPatient = [100 - 4 * k, -50 + 3 * k, 7]
    data.RescaleSlope, data.RescaleIntercept = 2, -1024
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    data.add_new(0x7FE00010, "OW", (stored(k) if pixels is None else pixels).astype(order).tobytes())
    for field, value in fields.items():
        if value is None:
            delattr(data, field)
        else:
            setattr(data, field, value)
    path = tmp_path / (name or f"{50 - k}.dcm")
    path.parent.mkdir(exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def stored(k):
    return 100 * k + np.arange(12).reshape(3, 4)


@pytest.fixture
def series(tmp_path):
    for k in range(4):
        slice_of(k, tmp_path / "series")
    return tmp_path / "series"


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_nifti(tmp_path, name, kind):
    path = save(tmp_path / "x.nii", VOXELS, kind=kind)
    content = path.read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    scan = read_scan(tmp_path / name)
    assert scan.voxels.dtype == np.int16
    assert scan.shape == (6, 5, 4)
    np.testing.assert_array_equal(scan.voxels.transpose(2, 1, 0), VOXELS)
    np.testing.assert_allclose(scan.affine, OBLIQUE, rtol=1e-6)
    np.testing.assert_allclose(scan.spacing, (3, 2, 1.5), rtol=1e-6)
    np.testing.assert_array_equal(load(tmp_path / name).X, scan.voxels)


def test_slope_and_byte_order(tmp_path):
    meant = (VOXELS * 0.5 + 3).astype(np.float32)
    for endianness in "<>":
        path = save(tmp_path / "a.nii", VOXELS, slope=(0.5, 3), endianness=endianness)
        raw = np.frombuffer(path.read_bytes()[352:], dtype=f"{endianness}i2").reshape(VOXELS.shape, order="F")
        np.testing.assert_array_equal(raw, VOXELS)
        scan = read_scan(path)
        assert scan.voxels.dtype == np.float32
        assert scan.voxels.dtype.isnative
        np.testing.assert_array_equal(scan.voxels, meant.T)
    plain = read_scan(save(tmp_path / "b.nii", VOXELS, endianness=">"))
    assert plain.voxels.dtype == np.dtype(np.int16)
    np.testing.assert_array_equal(plain.voxels, VOXELS.T)


@pytest.mark.parametrize("name", ["mask.nii", "mask.nii.gz"])
def test_a_mask_lies_on_its_scan(tmp_path, name):
    source = nibabel.Nifti1Image(VOXELS, None)
    source.set_qform(np.diag([1.5, 2, 3, 1]), code=1)  # another one, as some programs leave it
    source.set_sform(OBLIQUE, code=4)
    source.to_filename(tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    mask = scan.voxels > 0
    written = write_mask(tmp_path / name, mask, like=scan)
    image = nibabel.load(written)
    assert image.shape == source.shape
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), VOXELS > 0)
    for got, expected in zip(
        image.header.get_sform(coded=True) + image.header.get_qform(coded=True),
        source.header.get_sform(coded=True) + source.header.get_qform(coded=True),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_array_equal(read_scan(written).voxels, mask)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    before = written.read_bytes()
    assert write_mask(written, mask.astype(np.uint8), like=scan).read_bytes() == before

    scores = RNG.normal(size=scan.shape)
    back = read_scan(write_map(tmp_path / "map.nii.gz", scores, like=scan))
    np.testing.assert_array_equal(back.voxels, scores.astype(np.float32))
    np.testing.assert_allclose(back.affine, scan.affine)


def test_volumes_and_odd_axes(tmp_path):
    several = np.stack([VOXELS, VOXELS + 1], axis=3)
    path = save(tmp_path / "several.nii", several)
    said = r"volume must be a whole number from 0 to 1 .*\(4, 5, 6, 2\); got None. Give for example volume=0"
    with pytest.raises(InvalidParameterError, match=said):
        read_scan(path)
    for wrong in (2, -1, True, 0.0):
        with pytest.raises(InvalidParameterError, match="volume must be"):
            read_scan(path, volume=wrong)
    scan = read_scan(path, volume=1)
    np.testing.assert_array_equal(scan.voxels, VOXELS.T + 1)
    assert nibabel.load(write_mask(tmp_path / "m.nii", scan.voxels > 0, like=scan)).shape == VOXELS.shape

    one = save(tmp_path / "one.nii", VOXELS[..., None])
    np.testing.assert_array_equal(read_scan(one).voxels, VOXELS.T)
    with pytest.raises(InvalidParameterError, match=r"volume must be left out .* only one volume"):
        read_scan(one, volume=0)
    with pytest.raises(InvalidParameterError, match=r"series must be left out .* meant for DICOM"):
        read_scan(one, series="1.2")
    flat = read_scan(save(tmp_path / "flat.nii", VOXELS[:, :, 0]))
    np.testing.assert_array_equal(flat.voxels, VOXELS[:, :, :1].T)

    vectors = save(tmp_path / "vectors.nii", np.zeros((4, 5, 6, 1, 3), np.float32))
    with pytest.raises(
        DataFileError, match=r"must have the axes of .* got the shape \(4, 5, 6, 1, 3\). Split"
    ):
        read_scan(vectors)
    colour = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for values in (colour, np.zeros((4, 5, 6), np.complex64)):
        with pytest.raises(DataFileError, match=r"one real number for each voxel; got the type .*. Convert"):
            read_scan(save(tmp_path / "c.nii", values))


def test_geometry_that_is_none(tmp_path):
    broken = OBLIQUE.copy()
    broken[:3, 2] = broken[:3, 1]
    path = save(tmp_path / "a.nii", VOXELS, affine=None)
    image = nibabel.load(path)
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = broken[:3]
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    path.write_bytes(nibabel.Nifti1Image(VOXELS, None, image.header).to_bytes())
    with pytest.raises(DataFileError, match=r"must have an affine that can be inverted; got .*. Repair"):
        read_scan(path)


def test_voxels_that_are_not_finite(tmp_path):
    holes = VOXELS.astype(np.float32)
    holes[0, 0, :2] = np.nan, np.inf
    path = save(tmp_path / "a.nii", holes)
    with pytest.raises(DataFileError, match=r"must hold finite voxels; got 2 of 120 that are not. .* fill=0"):
        read_scan(path)
    filled = read_scan(path, fill=-5.0).voxels
    assert filled[:2, 0, 0].tolist() == [-5, -5]
    np.testing.assert_array_equal(filled[2:], holes.T[2:])


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_damaged_nifti(tmp_path, name):
    path = save(tmp_path / name, RNG.integers(0, 255, (9, 9, 9), dtype=np.uint8))
    whole = path.read_bytes()
    for kept in (3, 200, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataFileError, match=r"a\.nii.* must (be|hold) .*; got"):
            read_scan(path)
    path.write_bytes(b"")
    with pytest.raises(DataFileError, match="got an empty file"):
        read_scan(path)
    path.write_bytes(b"no scan at all" * 99)
    with pytest.raises(DataFileError, match="must be a NIfTI file; got one that is damaged"):
        read_scan(path)
    with pytest.raises(DataFileError, match="got a path that does not exist"):
        read_scan(tmp_path / "other.nii")


def test_a_header_that_announces_too_much(tmp_path):
    path = save(tmp_path / "a.nii", VOXELS)
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([30_000] * 3, "<i2").tobytes()
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=r"the 54000000000352 bytes that its header announces; got 592"):
        read_scan(path)


def test_dicom_by_hand(series):
    scan = read_scan(series)
    # in LPS: rows (0.6, 0.8, 0) x 0.5 mm, columns (0, 0, -1) x 2 mm, steps (-4, 3, 0), first (100, -50, 7);
    # RAS turns the first two signs.
    by_hand = [[-0.3, 0, 4, -100], [-0.4, 0, -3, 50], [0, -2, 0, 7], [0, 0, 0, 1]]
    np.testing.assert_allclose(scan.affine, by_hand, atol=1e-12)
    np.testing.assert_allclose(scan.spacing, (5, 2, 0.5))
    # the files are called 50, 49, ...: by position, not by name
    np.testing.assert_array_equal(scan.voxels, [2 * stored(k) - 1024 for k in range(4)])
    assert scan.voxels.dtype == np.float32
    np.testing.assert_array_equal(load(series).X, scan.voxels)
    with pytest.raises(InvalidParameterError, match=r"volume must be left out .* meant for NIfTI"):
        read_scan(series, volume=0)


def test_one_slice(tmp_path):
    path = slice_of(2, tmp_path, SpacingBetweenSlices=6.0)
    scan = read_scan(path)
    assert scan.shape == (1, 3, 4)
    assert scan.spacing == pytest.approx((6, 2, 0.5))
    np.testing.assert_allclose(scan.affine[:, 3], [-92, 44, 7, 1])
    np.testing.assert_allclose(scan.affine[:3, 2], [4.8, -3.6, 0], atol=1e-12)
    np.testing.assert_array_equal(load(path).X, scan.voxels)
    image = nibabel.load(write_mask(tmp_path / "m.nii", scan.voxels > 0, like=scan))
    assert image.shape == (4, 3, 1)


def test_an_xray_without_a_position(tmp_path):
    unplaced = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope")
    fields = dict.fromkeys(unplaced)
    path = slice_of(
        1,
        tmp_path,
        PhotometricInterpretation="MONOCHROME1",
        ImagerPixelSpacing=[0.2, 0.1],
        RescaleIntercept=None,
        **fields,
    )
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.voxels[0], 4095 - stored(1))
    assert scan.voxels.dtype.kind == "u"
    np.testing.assert_allclose(scan.affine, np.diag([-0.1, -0.2, 5, 1]))
    slice_of(0, tmp_path, **fields)
    with pytest.raises(
        DataFileError, match=r"must have Image Position .* one of 2 slices; got none. Read such"
    ):
        read_scan(tmp_path)


def test_a_picture_seen_the_same_in_nifti(series, tmp_path):
    """A voxel has one place in the patient, in the DICOM file and in the NIfTI file made of it."""
    scan = read_scan(series)
    mask = np.zeros(scan.shape, bool)
    mask[2, 1, 3] = True
    image = nibabel.load(write_mask(tmp_path / "m.nii.gz", mask, like=scan))
    place = image.affine @ [*np.argwhere(np.asarray(image.dataobj))[0], 1]
    header = pydicom.dcmread(series / "48.dcm")
    u, v = np.array(header.ImageOrientationPatient[:3]), np.array(header.ImageOrientationPatient[3:])
    lps = np.array(header.ImagePositionPatient) + 3 * 0.5 * u + 1 * 2.0 * v
    np.testing.assert_allclose(place[:3], lps * [-1, -1, 1], atol=1e-4)
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    np.testing.assert_allclose(image.header.get_qform(), scan.affine, atol=1e-5)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_derived_series(tmp_path, syntax):
    for k in range(3):
        slice_of(k, tmp_path / "series", syntax=syntax)
    scan = read_scan(tmp_path / "series")
    np.testing.assert_array_equal(scan.voxels, [2 * stored(k) - 1024 for k in range(3)])
    mask = RNG.random(scan.shape) > 0.5
    folder = write_mask(tmp_path / "mask", mask, like=scan)
    back = read_scan(folder)
    np.testing.assert_array_equal(back.voxels, mask)
    np.testing.assert_allclose(back.affine, scan.affine)
    files = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    assert [f.ImagePositionPatient for f in files] == [s.ImagePositionPatient for s in scan.slices]
    for made, source in zip(files, scan.slices, strict=True):
        for kept in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SOPClassUID"):
            assert made[kept].value == source[kept].value
        assert made.SOPInstanceUID != source.SOPInstanceUID
        assert made.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID
        assert made.SeriesInstanceUID != source.SeriesInstanceUID
        assert made.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
        assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert "SmallestImagePixelValue" not in made
        assert "no medical device" in made.DerivationDescription
    assert len({f.SeriesInstanceUID for f in files}) == 1
    assert len({f.SOPInstanceUID for f in files}) == 3
    with pytest.raises(DataFileError, match="must be a new or an empty folder"):
        write_mask(folder, mask, like=scan)

    scores = RNG.normal(size=scan.shape)
    (tmp_path / "map").mkdir()
    back = read_scan(write_map(tmp_path / "map", scores, like=scan))
    np.testing.assert_allclose(back.voxels, scores, atol=np.ptp(scores) / 65535)
    assert str(back.slices[0].SeriesInstanceUID) != str(files[0].SeriesInstanceUID)
    flat = read_scan(write_map(tmp_path / "flat", np.full(scan.shape, 0.25), like=scan))
    assert (flat.voxels == 0.25).all()
    # the same values make the same series
    again = write_mask(tmp_path / "again", mask, like=scan)
    assert [p.read_bytes() for p in sorted(again.iterdir())] == [
        p.read_bytes() for p in sorted(folder.iterdir())
    ]


def test_what_cannot_be_written(series, tmp_path):
    scan = read_scan(series)
    mask = np.zeros(scan.shape, bool)
    with pytest.raises(
        InvalidDataError, match=r"mask must have the scan's shape \(4, 3, 4\), .*got \(4, 4, 3\)"
    ):
        write_mask(tmp_path / "m.nii", mask.transpose(0, 2, 1), like=scan)
    for wrong in (mask + 2, mask + 0.5):
        with pytest.raises(InvalidDataError, match="mask must hold True and False; got the type"):
            write_mask(tmp_path / "m.nii", wrong, like=scan)
    for wrong in (mask + np.nan, mask + 1e39):
        with pytest.raises(InvalidDataError, match="scores must be finite; got 48 of 48"):
            write_map(tmp_path / "m.nii", wrong, like=scan)
    with pytest.raises(InvalidDataError, match="scores must hold real numbers"):
        write_map(tmp_path / "m.nii", mask + 1j, like=scan)
    for name in ("m.png", "m.dcm", "m.nii.zip"):
        with pytest.raises(
            InvalidParameterError, match=r"path must end in \.nii or \.nii\.gz, or be a folder"
        ):
            write_mask(tmp_path / name, mask, like=scan)
    nifti = read_scan(write_mask(tmp_path / "m.nii", mask, like=scan))
    with pytest.raises(InvalidParameterError, match=r"path must end in \.nii .* for a scan from .*m\.nii"):
        write_mask(tmp_path / "folder", mask, like=nifti)
    for target in (tmp_path / "no" / "m.nii", tmp_path / "m.nii" / "m.nii.gz"):
        with pytest.raises(DataFileError, match="must be in a place that can be written; got"):
            write_mask(target, mask, like=scan)


def test_mixed_series(series, tmp_path):
    slice_of(0, series, "x.dcm", SeriesInstanceUID="1.2.9", SeriesDescription="scout")
    said = r"one of the 2 Series .*: 1\.2\.3\.4 \(4 files, .*; 1\.2\.9 \(1 files, scout\); got None. Give one"
    with pytest.raises(InvalidParameterError, match=said):
        read_scan(series)
    with pytest.raises(InvalidParameterError, match="got '7'"):
        read_scan(series, series="7")
    assert read_scan(series, series="1.2.3.4").shape == (4, 3, 4)
    assert read_scan(series, series="1.2.9").shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("k", "fields", "said"),
    [
        (5, {}, r"even steps; got steps from 5 to 10 mm, the widest between 47\.dcm and x\.dcm. Fetch"),
        (3, {}, r"lie at different places; got 47\.dcm and x\.dcm at the same one"),
        (4, {"PixelSpacing": [2.0, 0.6]}, "must be parallel, with pixels of one size"),
        (4, {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "must be parallel"),
        (4, {"Rows": 2}, r"must have one size; got \(3, 4\) in .* and \(2, 4\) in .*x\.dcm"),
        (4, {"ImagePositionPatient": [84, -38, 9]}, "must follow each other in even steps"),
        (4, {"ImagePositionPatient": None}, "must have Image Position"),
        (4, {"NumberOfFrames": 2}, r"x\.dcm must have one frame; got 2. Convert it to NIfTI"),
        (4, {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "must be grey .*; got RGB"),
        (4, {"PixelData": None}, r"x\.dcm must hold pixels; got none: .*\(CT\). Copy it again"),
        (4, {"BitsAllocated": 32}, r"x\.dcm must be a DICOM file; got one that is damaged"),
    ],
)
def test_slices_that_do_not_fit(series, k, fields, said):
    slice_of(k, series, "x.dcm", **fields)
    with pytest.raises(DataFileError, match=said):
        read_scan(series)


def test_a_tilted_gantry(tmp_path):
    for k in range(3):
        slice_of(k, tmp_path, ImagePositionPatient=[100 - 4 * k, -50 + 3 * k, 7 - 2 * k])
    np.testing.assert_allclose(read_scan(tmp_path).affine[:3, 2], [4, -3, -2])


def test_files_without_suffix_and_other_files(series):
    for path in sorted(series.iterdir()):
        path.rename(path.with_suffix(""))
    (series / "README.txt").write_text("not a slice")
    (series / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (series / ".hidden.dcm").write_bytes(b"nothing")
    assert read_scan(series).shape == (4, 3, 4)
    assert load(series).X.shape == (4, 3, 4)
    assert read_scan(series / "50").shape == (1, 3, 4)
    (series / "other.dcm").write_text("not a slice, whatever its name says")
    with pytest.raises(
        DataFileError, match=r"other\.dcm must have DICOM's mark at byte 128; got another kind"
    ):
        read_scan(series)


def test_damaged_dicom(tmp_path):
    path = slice_of(0, tmp_path, "a.dcm")
    whole = path.read_bytes()
    for kept in (100, 140, 300, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataFileError, match=r"a\.dcm must (be|have|hold) .*; got"):
            read_scan(path)


@pytest.mark.parametrize("field", [b"\x28\x00\x52\x10DS", b"\x20\x00\x0e\x00UI", b"\x28\x00\x04\x00CS"])
def test_fields_of_no_known_type(tmp_path, field):
    path = slice_of(0, tmp_path, "a.dcm")
    content = path.read_bytes()
    assert content.count(field) == 1
    path.write_bytes(content.replace(field, field[:4] + b"QQ"))
    with pytest.raises(DataFileError, match=r"a\.dcm must be a DICOM file; got one that is damaged"):
        read_scan(path)


def test_hidden_dicom(tmp_path):
    sealed = tmp_path / "sealed.dcm"
    sealed.write_bytes(bytes.fromhex("3080 0609 2a864886f70d010703 a080") + bytes(400))
    with pytest.raises(DataFileError, match=r"got what may be an encrypted envelope. Decrypt it first"):
        read_scan(sealed)

    encrypted = slice_of(
        0, tmp_path, "fields.dcm", Rows=None, PatientName=None, EncryptedAttributesSequence=[Dataset()]
    )
    with pytest.raises(DataFileError, match=r"how its pixels lie; .* whose fields are encrypted. Decrypt it"):
        read_scan(encrypted)
    encrypted = slice_of(0, tmp_path, "pixels.dcm", PixelData=None, EncryptedAttributesSequence=[Dataset()])
    with pytest.raises(
        DataFileError, match=r"hold pixels; got a file whose fields are encrypted. Decrypt it"
    ):
        read_scan(encrypted)

    packed = slice_of(0, tmp_path, "packed.dcm")
    data = pydicom.dcmread(packed)
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 no picture \xff\xd9"])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = JPEGLSLossless
    data.save_as(packed)
    with pytest.raises(
        DataFileError, match=r"can be unpacked; got JPEG-LS Lossless (.|\n)*pip install pylibjpeg"
    ):
        read_scan(packed)
    data.file_meta.TransferSyntaxUID = "1.2.3.4.5"
    data.save_as(packed, implicit_vr=False, little_endian=True)
    with pytest.raises(DataFileError, match="packed"):
        read_scan(packed)


def test_folders_without_a_scan(tmp_path):
    with pytest.raises(
        DataFileError, match=r"must hold the DICOM files of a scan; got nothing. Give the folder"
    ):
        read_scan(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataFileError, match=r"got 'a\.txt'"):
        read_scan(tmp_path)
    with pytest.raises(DataFileError, match=r"a\.txt must hold data; got an empty file"):
        read_scan(tmp_path / "a.txt")


@pytest.mark.parametrize("package", ["nibabel", "pydicom"])
def test_missing_libraries(tmp_path, series, missing, package):
    source = save(tmp_path / "a.nii", VOXELS) if package == "nibabel" else series
    scan = read_scan(source)
    missing(package)
    said = rf"needs {package}, which is not installed. Run: pip install 'diabolo\[medical\]'"
    with pytest.raises(MissingExtraError, match=said):
        read_scan(source)
    target = tmp_path / ("b.nii" if package == "nibabel" else "b")
    with pytest.raises(MissingExtraError, match=said):
        write_mask(target, scan.voxels > 0, like=scan)


def test_options_that_do_not_apply(tmp_path, series):
    for source in (save(tmp_path / "a.nii", VOXELS), series):
        with pytest.raises(InvalidParameterError, match="image_size must be left out"):
            load(source, image_size=(8, 8))
        with pytest.raises(InvalidParameterError, match="label must be left out"):
            load(source, label="y")


# -------------------------------------------------------------------------------- many scans in one place
UNPLACED = {"ImagePositionPatient": None, "ImageOrientationPatient": None}


def test_loose_xrays_are_a_scan_each(tmp_path):
    for k in range(3):  # of three patients; the fourth shares a series with the third
        uids = {"SeriesInstanceUID": f"1.2.{k}", "StudyInstanceUID": f"1.3.{k}"}
        slice_of(k, tmp_path, f"x{k}.dcm", **uids, **UNPLACED)
    slice_of(3, tmp_path, "x10", SeriesInstanceUID="1.2.2", StudyInstanceUID="1.3.2", **UNPLACED)
    (tmp_path / "README.txt").write_text("no picture")
    found = find_scans(tmp_path)
    assert [scan.name for scan in found] == ["x0", "x1", "x2", "x10"]
    for k, scan in enumerate(found):
        one = scan.read()
        np.testing.assert_array_equal(one.voxels, [2 * stored(k) - 1024])
        assert read_scan(write_mask(tmp_path / "masks" / scan.name, one.voxels > 0, like=one)).shape == (
            1,
            3,
            4,
        )
    masks = [read_scan(tmp_path / "masks" / scan.name).slices[0] for scan in found]
    assert len({mask.SeriesInstanceUID for mask in masks}) == 4
    assert [mask.StudyInstanceUID for mask in masks] == ["1.3.0", "1.3.1", "1.3.2", "1.3.2"]
    np.testing.assert_array_equal(load(tmp_path).X, [2 * stored(k) - 1024 for k in range(4)])
    slice_of(4, tmp_path, "y.dcm", SeriesInstanceUID="1", Rows=2, pixels=stored(0)[:2], **UNPLACED)
    with pytest.raises(
        DataFileError, match=r"pictures must have one size; got \(3, 4\) in .*x0\.dcm and \(2, 4\)"
    ):
        load(tmp_path)


def test_scans_of_several_kinds_in_one_folder(series, tmp_path):
    for k in range(4):
        slice_of(k, series, f"t{k}.dcm", SeriesInstanceUID="1.2.9")
    save(tmp_path / "b.nii.gz", VOXELS)
    save(tmp_path / "a.nii", np.stack([VOXELS, VOXELS], axis=3))
    slice_of(0, tmp_path / "c", "a.dcm", **UNPLACED)
    slice_of(1, tmp_path / "c", "b.dcm", **UNPLACED)
    slice_of(0, tmp_path / "d", "scout.dcm")
    (tmp_path / "empty").mkdir()
    found = find_scans(tmp_path)
    assert [scan.name for scan in found] == ["a", "b", "c/a", "c/b", "d", "series-1", "series-2"]
    assert [scan.read(volume=0 if scan.name == "a" else None).shape for scan in found] == [
        *[(6, 5, 4)] * 2, *[(1, 3, 4)] * 3, *[(4, 3, 4)] * 2,
    ]  # fmt: skip
    with pytest.raises(
        InvalidParameterError, match=r"got None. Give one of them, or go through .*find_scans"
    ):
        read_scan(series)
    with pytest.raises(InvalidParameterError, match="volume must be left out"):
        found[-1].read(volume=0)
    assert [scan.name for scan in find_scans(series)] == ["series-1", "series-2"]
    assert [scan.name for scan in find_scans(tmp_path / "b.nii.gz")] == ["b"]
    save(tmp_path / "a.nii.gz", VOXELS)
    assert [scan.name for scan in find_scans(tmp_path)][:3] == ["a.nii", "a.nii.gz", "b.nii.gz"]
    assert find_scans(tmp_path / "empty") == []
    with pytest.raises(DataFileError, match="got a path that does not exist"):
        find_scans(tmp_path / "nothing")


def test_a_slice_without_a_place_is_not_read_as_another_scan(series):
    slice_of(9, series, "x.dcm", **UNPLACED)
    (scan,) = find_scans(series)
    with pytest.raises(DataFileError, match=r"x\.dcm must have Image Position .* one of 5 slices"):
        scan.read()


# -------------------------------------------------------------------------------- grey values
def rescaled(path):
    """Return the values that pydicom makes of a file, whether bright is high or low."""
    data = pydicom.dcmread(path)
    return apply_modality_lut(data.pixel_array, data)


@pytest.mark.parametrize("slope", [1, 2, -0.5])
def test_dark_pixels_of_high_value_are_turned_within_the_rescaled_range(tmp_path, slope):
    fields = {"RescaleSlope": slope, "RescaleIntercept": -1024}
    path = slice_of(1, tmp_path, "a.dcm", PhotometricInterpretation="MONOCHROME1", **fields)
    low, high = -1024, 4095 * slope - 1024  # what 0 and the largest number of 12 bits stand for
    voxels = read_scan(path).voxels[0]
    np.testing.assert_allclose(voxels, low + high - rescaled(path), rtol=1e-6)
    data = pydicom.dcmread(path)
    data.PresentationLUTShape = "INVERSE"  # as pydicom turns it, up to where it starts
    theirs = apply_presentation_lut(rescaled(path), data)
    np.testing.assert_allclose(voxels - voxels.min(), theirs - theirs.min(), atol=1e-3)
    np.testing.assert_allclose(read_scan(slice_of(1, tmp_path, "b.dcm", **fields)).voxels[0], rescaled(path))


def test_a_table_of_grey_values(tmp_path):
    item = Dataset()
    item.add_new(0x00283002, "US", [12, 0, 8])
    item.add_new(0x00283006, "US", [k * k for k in range(12)])
    path = slice_of(
        0, tmp_path, "a.dcm", ModalityLUTSequence=[item], RescaleSlope=None, RescaleIntercept=None
    )
    squares = np.arange(12).reshape(3, 4) ** 2
    np.testing.assert_array_equal(rescaled(path), squares)
    np.testing.assert_array_equal(read_scan(path).voxels[0], squares)
    data = pydicom.dcmread(path)
    data.PhotometricInterpretation = "MONOCHROME1"
    data.save_as(path)
    np.testing.assert_array_equal(read_scan(path).voxels[0], 255 - squares)  # not the table of 4095 - k


def test_a_slope_without_intercept_and_one_of_0(tmp_path):
    path = slice_of(0, tmp_path, "a.dcm", RescaleIntercept=None)
    np.testing.assert_array_equal(read_scan(path).voxels[0], 2 * stored(0))
    path = slice_of(0, tmp_path, "a.dcm", RescaleSlope=None)
    np.testing.assert_array_equal(read_scan(path).voxels[0], stored(0) - 1024.0)
    with pytest.raises(DataFileError, match="must have a Rescale Slope that is not 0"):
        read_scan(slice_of(0, tmp_path, "a.dcm", RescaleSlope=0))


@pytest.mark.parametrize("spacing", [[-1, 1], [1, -1], [0, 1]])
def test_pixels_of_no_size(tmp_path, spacing):
    with pytest.raises(DataFileError, match=r"a\.dcm must have (directions|an affine)"):
        read_scan(slice_of(0, tmp_path, "a.dcm", PixelSpacing=spacing))


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"])
def test_a_series_is_derived_from_slices_with_names_only(tmp_path, keyword):
    path = slice_of(0, tmp_path, "a.dcm")
    for value in (None, ""):
        data = pydicom.dcmread(path)
        if value is None:
            delattr(data, keyword)
        else:
            data.add_new(keyword, "UI", value)
        data.save_as(tmp_path / "b.dcm", enforce_file_format=False)
        scan = read_scan(tmp_path / "b.dcm")
        with pytest.raises(
            DataFileError, match=rf"got no {keyword} in slice 1. Give a path that ends in \.nii"
        ):
            write_mask(tmp_path / "mask", scan.voxels > 0, like=scan)
        assert not (tmp_path / "mask").exists()
        write_mask(tmp_path / "mask.nii.gz", scan.voxels > 0, like=scan)


def test_a_header_that_cannot_be_written_again(tmp_path):
    path = slice_of(0, tmp_path, "a.dcm")
    number = b"\x20\x00\x11\x00IS\x02\x00"
    path.write_bytes(path.read_bytes().replace(number + b"7 ", number + b"x "))
    scan = read_scan(path)
    with pytest.raises(DataFileError, match=r"got another in slice 1 \(.*Give a path that ends in \.nii"):
        write_mask(tmp_path / "mask", scan.voxels > 0, like=scan)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.dcm"]


# -------------------------------------------------------------------------------- odd NIfTI files
def patched(path, place, layout, *values):
    """Write a NIfTI file with some bytes of its header replaced."""
    content = bytearray(save(path, VOXELS).read_bytes())
    struct.pack_into(layout, content, place, *values)
    path.write_bytes(content)
    return path


def test_an_axis_longer_than_nifti_1_can_say(tmp_path):
    for shape in ((1, 1, 40_000), (1, 40_000, 1)):
        scan = Scan(np.zeros(shape, np.uint8), OBLIQUE, tmp_path)
        mask = np.arange(40_000).reshape(shape) % 7 == 0
        path = write_mask(tmp_path / "m.nii.gz", mask, like=scan)
        assert isinstance(nibabel.load(path), nibabel.Nifti2Image)
        again = read_scan(path)
        np.testing.assert_array_equal(again.voxels, mask)
        np.testing.assert_allclose(again.affine, OBLIQUE)
        np.testing.assert_array_equal(
            read_scan(write_mask(tmp_path / "n.nii", mask, like=again)).voxels, mask
        )


@pytest.mark.parametrize(
    ("place", "layout", "values"),
    [
        (252, "<hhf", (1, 2, np.nan)),  # quaternions that are none, beside a good sform
        (252, "<hhf", (1, 2, 5.0)),
        (123, "<B", (255,)),  # units that are none
    ],
)
def test_a_mask_lies_on_a_scan_with_a_damaged_second_geometry(tmp_path, place, layout, values):
    scan = read_scan(patched(tmp_path / "a.nii", place, layout, *values))
    np.testing.assert_allclose(scan.affine, OBLIQUE, rtol=1e-6)
    image = nibabel.load(write_mask(tmp_path / "m.nii", scan.voxels > 0, like=scan))
    np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-6)
    assert np.isfinite(image.header.get_qform()).all()


@pytest.mark.parametrize(
    ("unit", "millimetres"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)]
)
def test_geometry_is_in_millimetres_whatever_the_file_s_unit(tmp_path, unit, millimetres):
    image = nibabel.Nifti1Image(VOXELS, OBLIQUE)
    image.header.set_xyzt_units(unit)
    image.to_filename(tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    np.testing.assert_allclose(scan.affine[:3], OBLIQUE[:3] * millimetres, rtol=1e-6)
    mask = nibabel.load(write_mask(tmp_path / "m.nii", scan.voxels > 0, like=scan))
    assert mask.header.get_xyzt_units()[0] == unit
    np.testing.assert_allclose(mask.affine, OBLIQUE, rtol=1e-6)


AXES = {
    "flipped": np.diag([-1.0, -1, -1, 1]),
    "turned": np.array([[0, 0, 2.0, 0], [1, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1]]),
    "sheared": np.array([[2, 0.5, 0, 1], [0, 2, 0.3, 1], [0, 0, 3, 0], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("axes", AXES)
def test_odd_axes_are_kept(tmp_path, axes):
    scan = read_scan(save(tmp_path / "a.nii", VOXELS[..., None], AXES[axes]))
    np.testing.assert_array_equal(scan.voxels, VOXELS.T)
    np.testing.assert_allclose(scan.affine, AXES[axes], atol=1e-6)
    assert scan.axes == "".join(nibabel.aff2axcodes(AXES[axes]))
    mask = nibabel.load(write_mask(tmp_path / "m.nii", scan.voxels > 0, like=scan))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), VOXELS > 0)
    np.testing.assert_allclose(mask.affine, AXES[axes], atol=1e-6)


def test_no_geometry_at_all(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, None)
    image.header["pixdim"][1:4] = 1.5, 2, 3
    image.to_filename(tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    np.testing.assert_allclose(scan.spacing, (3, 2, 1.5))
    mask = nibabel.load(write_mask(tmp_path / "m.nii", scan.voxels > 0, like=scan))
    assert mask.header["sform_code"] == mask.header["qform_code"] == 0
    np.testing.assert_allclose(mask.affine, nibabel.load(tmp_path / "a.nii").affine)


@pytest.mark.parametrize("slope", [np.nan, np.inf, 0.0])
def test_a_slope_that_is_none_scales_nothing(tmp_path, slope):
    scan = read_scan(patched(tmp_path / "a.nii", 112, "<f", slope))
    np.testing.assert_array_equal(scan.voxels, VOXELS.T)
    assert scan.voxels.dtype == np.int16


@pytest.mark.parametrize("intercept", [np.nan, np.inf])
def test_an_intercept_that_is_none(tmp_path, intercept):
    with pytest.raises(DataFileError, match="invalid intercept"):
        read_scan(patched(tmp_path / "a.nii", 112, "<ff", 2.0, intercept))


def test_numbers_beyond_single_precision(tmp_path):
    voxels = VOXELS.astype(np.float64)
    voxels[1, 2, 3] = 1e300
    with pytest.raises(DataFileError, match="must hold finite voxels; got 1 of 120"):
        read_scan(save(tmp_path / "a.nii", voxels))


@pytest.mark.data
def test_a_real_head(real_data, tmp_path):
    scan = read_scan(Path(real_data) / "medical" / "ch2.nii.gz")
    assert scan.shape == (181, 217, 181)
    assert scan.voxels.dtype == np.uint8
    assert scan.spacing == (1, 1, 1)
    # the middle of the head, 90 mm from its left edge
    np.testing.assert_array_equal(scan.affine[:3, 3], [-90, -125, -71])
    image = nibabel.load(write_mask(tmp_path / "m.nii.gz", scan.voxels > 100, like=scan))
    assert image.shape == (181, 217, 181)
    np.testing.assert_array_equal(image.affine, scan.affine)
    assert image.header["sform_code"] == 4


def test_no_two_scans_have_one_name(tmp_path):
    def slices(folder, series, n):
        folder.mkdir(exist_ok=True, parents=True)
        for k in range(n):
            slice_of(k, folder, name=f"{series[-2:]}-{k}.dcm", SeriesInstanceUID=series)

    slices(tmp_path / "scans" / "p", "1.2.3.10", 3)
    slices(tmp_path / "scans" / "p", "1.2.3.11", 3)
    slices(tmp_path / "scans" / "p-1", "1.2.3.12", 3)
    slices(tmp_path / "scans" / "scans", "1.2.3.13", 3)
    slices(tmp_path / "scans", "1.2.3.14", 3)
    names = [scan.name for scan in find_scans(tmp_path / "scans")]
    assert len(names) == 5
    assert len({name.casefold() for name in names}) == 5, names
