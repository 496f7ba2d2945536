"""Maps of anomalies: ``diabolo detect fit`` on images, and ``diabolo detect map``."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli.console import Output, counted, duration, number, print_pairs
from diabolo.cli.detect_frames import Frames, check_pixels, frames_of, note_axes, note_sub_folders, origin_of
from diabolo.cli.detecting import NormalValue, anomalies, load_map, percent, print_labels, threshold_told
from diabolo.cli.options import ScanOptions, SourceOptions
from diabolo.cli.output import FOLDER, aside, check_place, naming
from diabolo.cli.page import COMMAND, ReportFolder, check_report_place
from diabolo.cli.progress import Bars, counting
from diabolo.errors import InvalidDataError, InvalidParameterError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from diabolo.applications import AnomalyMap
    from diabolo.applications.regions import Region
    from diabolo.cli.pictures import Images
    from diabolo.report.detection_map import Looked

    Array = NDArray[Any]

IMAGES_HELP = (
    "A folder of pictures (or of one sub-folder for each class), which may differ in size; a scan (.nii, "
    ".nii.gz, .dcm, a folder of DICOM slices) or a folder of scans; or an array of images (.npy, .npz, idx)."
)
_HEAT, _MASK = "overlays", "masks"


def fit_map(
    out: Output,
    data: str,
    source: SourceOptions,
    scans: ScanOptions,
    output: Path,
    estimator: Any,
    settings: dict[str, Any],
    normal: str | None,
) -> None:
    """Fit a map on the images of DATA, those of the class ``normal`` only where it is given."""
    from diabolo.applications import AnomalyMap
    from diabolo.cli.pictures import open_images

    images = open_images(data, source, scans)
    fitted = AnomalyMap(estimator=estimator, **settings)
    chosen, left_out = list(range(len(images))), 0
    if normal is not None:
        truth = _truth(images, normal)
        assert truth is not None
        chosen = [i for i in chosen if not truth[i]]
        left_out = len(images) - len(chosen)
        if left_out:
            out.note(f"{images.name}: {counted(left_out, 'image')} not in {normal!r} not learned from")
    else:
        note_sub_folders(out, images)
    frames = Frames(images, chosen, fitted.n_dims)
    out.note(f"map: learning from {counted(len(frames), 'image')} of {images.name}")
    groups = [i for i, _ in frames.places]
    together = groups if len(frames) > len(chosen) > 1 else None  # the slices of a scan
    if images.scans and fitted.n_dims == 2 and len(chosen) == 1:
        out.note(
            "map: the slices held out are neighbours of those learned from, so the false-alarm rate holds "
            "for slices of this scan, not for other scans. Give a folder of scans"
        )
    start = time.perf_counter()
    with Bars(out) as bars:
        fitted.fit(frames, groups=together, progress=bars.sharer("map"))
    fitted.origin_ = origin_of(out, images)
    fitted.save(output)
    payload = {
        "data": images.name,
        "model": output,
        "n_train": len(frames),
        "seconds": time.perf_counter() - start,
        **about_map(fitted),
    }
    pairs = [
        *told_of_map(payload),
        ("time", duration(payload["seconds"])),
        ("map", str(output)),
    ]
    out.result(payload, lambda to: print_pairs(to, pairs, title=f"map of anomalies, from {images.name}"))


def _truth(images: Images, normal: str | None, out: Output | None = None) -> NDArray[np.bool_] | None:
    """Return which images are anomalies by the names of their sub-folders."""
    if normal is None:
        return None
    if images.classes is None:
        raise InvalidParameterError(
            f"--normal must be the name of a sub-folder of pictures; got {normal!r} and {images.name} "
            "without such. Leave it out."
        )
    import numpy as np

    return anomalies(np.array(images.classes), normal, out)


def about_map(fitted: AnomalyMap) -> dict[str, Any]:
    """Return what a person asks about a fitted map first."""
    scores, pixels = fitted.calibration_.scores, fitted.pixel_calibration_.scores
    return {
        "layout": fitted.layout,
        "scales": fitted.factors,
        "tile": fitted.tile_,
        "n_dims": fitted.n_dims,
        "n_channels": fitted.n_channels_,
        "n_held_out": len(scores),
        "threshold": fitted.threshold_,
        "held_out_rate": float((scores > fitted.threshold_).mean()),
        "pixel_threshold": fitted.pixel_threshold_,
        "held_out_pixel_rate": float((pixels > fitted.pixel_threshold_).mean()),
    }


def told_of_map(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the same as names and values for a person."""
    kind = {0: "grey", 3: "colour"}.get(found["n_channels"], f"{found['n_channels']} channels")
    what = "volumes" if found["n_dims"] == 3 else "images"
    tiles = found["layout"] == "tiles"
    scales = ", ".join(f"1/{factor}" if factor > 1 else "1" for factor in found["scales"])
    return [
        (what, kind),
        ("scales", f"{scales}; " + (f"tiles of {found['tile']}" if tiles else "whole images, aligned")),
        (f"held-out {what}", f"{found['n_held_out']:,}"),
        ("threshold", threshold_told(found["threshold"], found["held_out_rate"], what)),
        ("pixels", threshold_told(found["pixel_threshold"], found["held_out_pixel_rate"], "pixels")),
    ]


# ---------------------------------------------------------------------------------------------------- map
@dataclass
class _Looked:
    """What was found in each image: lines of two tables, written as they come, and its score."""

    images: Any
    regions: Any
    scores: list[float] = field(default_factory=list)
    flagged: int = 0
    n_regions: int = 0
    last: list[Any] = field(default_factory=list)  # line of the first table
    most: list[Looked] | None = None  # the most anomalous first, where a page is to show them

    def keep(self, name: str, picture: Array, heat: Array, level: float, is_anomaly: bool | None) -> None:
        """Keep what the page shows of the image that was noted last, if it is among the most anomalous."""
        import numpy as np

        from diabolo.cli.pictures import overlay
        from diabolo.report.detection_map import Looked
        from diabolo.report.verdicts import MOST_SHOWN

        if self.most is None:
            return
        score, p_value, _, area, n = self.last[1:]
        if len(self.most) >= MOST_SHOWN and score <= self.most[-1].score:
            return
        plain, marked = (
            np.asarray(overlay(picture, one, level)) for one in (np.full_like(heat, -np.inf), heat)
        )
        self.most.append(Looked(name, score, p_value, area, n, plain, marked, is_anomaly))
        self.most = sorted(self.most, key=lambda one: -one.score)[:MOST_SHOWN]


def map(  # noqa: A001 - the name of the command
    out: Output,
    source: SourceOptions,
    scans: ScanOptions,
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A map file that `detect fit` wrote from images.")
    ],
    images: Annotated[str, typer.Argument(metavar="IMAGES", help=IMAGES_HELP)],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where maps and tables go: a new or empty folder."
        ),
    ],
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="X",
            help="The value of the heat map beyond which pixels are in the mask. (default: the file's)",
        ),
    ] = None,
    normal: NormalValue = None,
    report: ReportFolder = None,
) -> None:
    """Show where in IMAGES something is unlike the images that the map was fitted on.

    DIR then holds overlays/ (the image with its heat map in red and the edge of its mask), masks/ (white
    where the heat map is beyond the threshold), images.csv (score, p-value, verdict, area of the mask in
    pixels) and regions.csv (box, area and peak of each connected area; rows and columns count from 0, ends
    are exclusive). Of scans, masks and heat maps are NIfTI files that lie on the scan in a viewer, and the
    overlay is that of the slice with the highest score. This is no medical device: nothing of it is made or
    tested for diagnosis.
    """
    output = check_place(output, (FOLDER,))
    if report is not None:
        check_report_place(report)
    fitted = load_map(model)
    from importlib.util import find_spec

    from diabolo.cli.pictures import open_images

    if find_spec("PIL") is None:
        raise MissingExtraError("Writing pictures", "Pillow", "images")
    opened = open_images(images, source, scans, fitted.n_channels_)
    check_pixels(opened, fitted.origin_)
    truth = _truth(opened, normal, out)
    level = fitted._level(threshold)
    box = [f"{side}_{axis}" for side in ("first", "end") for axis in _axes(fitted)]
    peak = [f"peak_{axis}" for axis in _axes(fitted)]
    with aside(output, folder=True) as folder:
        for sub in (_HEAT, _MASK):
            (folder / sub).mkdir()
        with (
            _table(
                folder / "images.csv", ["image", "score", "p_value", "verdict", "area", "regions"]
            ) as lines,
            _table(folder / "regions.csv", ["image", "region", *box, "area", "peak", *peak]) as areas,
        ):
            looked = _Looked(lines, areas, most=None if report is None else [])
            n, unit = len(opened), "scans" if opened.scans else "images"
            for one in counting(out, "maps", ([i] for i in range(n)), n, unit):
                mark = None if truth is None else bool(truth[one[0]])
                _look(fitted, opened, one[0], folder, level, looked, mark)
    note_axes(out, opened, fitted.origin_)
    from diabolo.report.verdicts import measured, one_sided

    found = None
    if truth is not None:
        import numpy as np

        found = measured(truth, np.array(looked.scores), fitted.threshold_)
        said = one_sided(found, "images")
        if said is not None:
            out.note(said)
    payload = {
        "model": model,
        "data": opened.name,
        "output": output,
        "n": len(looked.scores),
        "flagged": looked.flagged,
        "n_regions": looked.n_regions,
        "threshold": fitted.threshold_,
        "pixel_threshold": level,
        "labels": found,
        "report": None if report is None else _write_report(report, fitted, opened, level, looked, truth),
    }
    out.result(payload, lambda to: _show(to, payload))


def _write_report(
    folder: Path,
    fitted: AnomalyMap,
    images: Images,
    level: float,
    looked: _Looked,
    truth: NDArray[np.bool_] | None,
) -> Path:
    import numpy as np

    from diabolo.report.detection_map import write_map_report

    told = f"{counted(len(looked.scores), 'image')} of {images.name}"
    with naming(folder):
        return write_map_report(
            folder,
            title=f"Anomalies in {images.name}",
            fitted=fitted,
            level=level,
            told=f"{told}. This is no medical device" if images.scans else told,
            scores=np.array(looked.scores),
            most=looked.most or [],
            truth=truth,
            settings=told_of_map(about_map(fitted)),
            command=COMMAND.get(),
        )


def _axes(fitted: AnomalyMap) -> tuple[str, ...]:
    return ("slice", "row", "column") if fitted.n_dims == 3 else ("row", "column")


def _look(
    fitted: AnomalyMap,
    images: Images,
    i: int,
    folder: Path,
    level: float,
    looked: _Looked,
    is_anomaly: bool | None,
) -> None:
    """Write the map of one image, or of one scan, and take note of what is in it."""
    import numpy as np

    from diabolo.applications.regions import regions_of
    from diabolo.cli.pictures import mask_picture, overlay
    from diabolo.data import write_map, write_mask

    scan = images.scan(i) if images.scans else None
    frames = frames_of(images, i, fitted.n_dims)
    heats, scores = [], []
    for name, frame in frames:
        try:
            heat = fitted.heatmap([frame])[0]
        except InvalidDataError as error:
            raise InvalidDataError(f"{name}: {error}") from None
        found = regions_of(heat, level)
        scores.append(fitted._image_score(heat))
        heats.append(heat)
        _note(fitted, name, scores[-1], found, looked)
        looked.keep(name, *_plane(frame, heat), level, is_anomaly)
    most = int(np.argmax(scores))
    place = (images.places or images.names)[i]
    if scan is not None:
        whole = heats[0] if fitted.n_dims == 3 else np.stack(heats)
        (folder / _MASK / place).parent.mkdir(parents=True, exist_ok=True)
        write_mask(folder / _MASK / f"{place}_mask.nii.gz", whole > level, scan)
        write_map(folder / _MASK / f"{place}_map.nii.gz", whole, scan)
        voxels = images.array(i)
        if fitted.n_dims == 3:
            most = int(np.argmax(whole.reshape(len(whole), -1).max(1)))
        picture, heat = voxels[most], whole[most]
    else:
        picture, heat = _plane(frames[0][1], heats[0])
        target = folder / _MASK / f"{place}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        mask_picture(heat > level).save(target, format="PNG")
    target = folder / _HEAT / f"{place}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    overlay(picture, heat, level).save(target, format="PNG")


def _plane(picture: Array, heat: Array) -> tuple[Array, Array]:
    """Return an image and its heat map as they are; of a volume the most anomalous slice."""
    if heat.ndim < 3:
        return picture, heat
    most = int(heat.reshape(len(heat), -1).max(1).argmax())
    return picture[..., most, :, :], heat[most]


def _note(fitted: AnomalyMap, name: str, score: float, found: list[Region], looked: _Looked) -> None:
    import numpy as np

    flagged = score > fitted.threshold_
    p_value = float(fitted.calibration_.p_value(np.array([score]))[0])
    area = sum(region.area for region in found)
    verdict = "anomaly" if flagged else "normal"
    looked.last = [name, score, p_value, verdict, area, len(found)]
    _write(looked.images, looked.last)
    looked.n_regions += len(found)
    looked.scores.append(score)
    looked.flagged += flagged
    for k, region in enumerate(found):
        ends = [*(part.start for part in region.box), *(part.stop for part in region.box)]
        _write(looked.regions, [name, k, *ends, region.area, region.peak, *region.position])


@contextmanager
def _table(path: Path, columns: list[str]) -> Iterator[Any]:
    with path.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        yield writer


def _write(table: Any, line: list[Any]) -> None:
    table.writerow([f"{cell:.9g}" if isinstance(cell, float) else cell for cell in line])


def _show(to: Console, payload: dict[str, Any]) -> None:
    share = percent(payload["flagged"] / payload["n"])
    pairs = [
        ("flagged", f"{payload['flagged']:,} of {payload['n']:,} images ({share})"),
        ("regions", f"{payload['n_regions']:,}, beyond {number(payload['pixel_threshold'])}"),
        ("maps", str(payload["output"])),
    ]
    if payload["report"] is not None:
        pairs.append(("report", str(payload["report"])))
    print_pairs(to, pairs, title=f"{payload['model']} on {payload['data']}")
    if payload["labels"] is not None:
        to.print()
        print_labels(to, payload["labels"])
