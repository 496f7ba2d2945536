"""Commands that only show: ``kinds``, ``info`` and ``diagram``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli import detecting, inputs
from diabolo.cli.console import STOPPED, Output, counted, duration, number, plain, print_pairs, print_table
from diabolo.cli.options import ModelFile, ParameterOptions, check_kind, given, sizes
from diabolo.cli.output import check_place
from diabolo.cli.train import make_estimator
from diabolo.errors import InvalidParameterError
from diabolo.kinds import BY_ESTIMATOR, KINDS

if TYPE_CHECKING:
    from rich.console import Console

    from diabolo import Autoencoder


def kinds(out: Output) -> None:
    """List the kinds of autoencoder: what each is, and the paper it comes from."""
    payload = {"kinds": [asdict(kind) for kind in KINDS]}
    rows = [(k.name, k.estimator, k.summary, k.paper, str(k.year)) for k in KINDS]
    out.result(
        payload, lambda to: print_table(to, ("kind", "estimator", "what it is", "paper", "year"), rows)
    )


def info(out: Output, model: ModelFile) -> None:
    """Show what a model file holds: its kind, its recipe, its sizes, how it was trained.

    Of a detector: its members, its threshold, and how many held-out rows are beyond it.
    """
    from diabolo.persistence import DETECTOR, MAP, SIGNALS, format_of

    told_apart = {
        DETECTOR.format: _detector_info,
        SIGNALS.format: _signals_info,
        MAP.format: _map_info,
    }
    found = format_of(model)
    if found in told_apart:
        told_apart[found](out, model)
        return
    estimator = inputs.load_model(model)
    from diabolo.persistence import read_model

    header, _ = read_model(model)
    history = estimator.history_
    name = type(estimator).__name__
    payload = {
        "model": model,
        "kind": BY_ESTIMATOR[name].name,
        "estimator": name,
        "bytes": model.stat().st_size,
        "versions": header["versions"],
        "n_features": estimator.n_features_in_,
        "sample_shape": estimator.sample_shape_,
        "n_parameters": estimator.n_parameters_,
        "recipe": estimator.recipe_.to_dict(),
        "history": {
            "epochs": len(history.rows),
            "best_epoch": history.best_epoch,
            "stopped_by": history.stopped_by,
            "seconds": history.rows[-1].get("seconds", 0.0) if history.rows else 0.0,
            "engine": history.engine,
            "events": history.events,
            "last": history.rows[-1] if history.rows else None,
        },
    }
    trained: dict[str, Any] = payload["history"]
    shape = " x ".join(str(extent) for extent in estimator.sample_shape_)
    pairs = [
        ("kind", str(payload["kind"])),
        ("one sample", f"{shape} ({estimator.n_features_in_} values)"),
        ("parameters", f"{estimator.n_parameters_:,}"),
        ("file", f"{payload['bytes']:,} bytes"),
        ("written by", _versions(payload["versions"])),
        (
            "trained",
            f"{counted(trained['epochs'], 'epoch')} in {duration(trained['seconds'])}, ended by "
            f"{STOPPED.get(trained['stopped_by'], trained['stopped_by'])}",
        ),
        ("weights of", _kept(trained)),
        *[("event", str(event)) for event in history.events],
        *[(f"last {key}", number(value)) for key, value in (trained["last"] or {}).items() if "total" in key],
        *[(key, _told(value)) for key, value in plain(payload["recipe"]).items()],
    ]
    out.result(payload, lambda to: print_pairs(to, pairs, title=str(model)))


def _detector_info(out: Output, path: Path) -> None:
    from diabolo.persistence import DETECTOR, read_model

    header, _ = read_model(path, DETECTOR)
    _show_detector(out, path, header, detecting.load_detector(path), "detector of anomalies", {})


def _signals_info(out: Output, path: Path) -> None:
    from diabolo.applications import SignalDetector
    from diabolo.persistence import SIGNALS, read_model

    header, _ = read_model(path, SIGNALS)
    fitted = SignalDetector.load(path)
    signal = {"window": fitted.window, "step": fitted.step, "n_channels": fitted.n_channels_}
    _show_detector(out, path, header, fitted.detector_, "detector of anomalies in series", signal)


def _show_detector(
    out: Output, path: Path, header: dict[str, Any], detector: Any, kind: str, signal: dict[str, Any]
) -> None:
    """Show a detector of rows; of windows, with what else is known of the series."""
    shape = " x ".join(str(extent) for extent in detector.sample_shape_)
    payload = {
        "model": path,
        "kind": "signal detector" if signal else "detector",
        **signal,
        "estimator": type(detector).__name__,
        "bytes": path.stat().st_size,
        "versions": header["versions"],
        "n_features": detector.n_features_in_,
        "settings": header["params"],
        **detecting.about(detector),
    }
    plain_settings = {key: value for key, value in payload["settings"].items() if key != "estimator"}
    pairs = [
        ("kind", kind),
        *[(key, _told(value)) for key, value in signal.items()],
        ("one sample", f"{shape} ({detector.n_features_in_} values)"),
        *detecting.told(payload),
        ("file", f"{payload['bytes']:,} bytes"),
        ("written by", _versions(payload["versions"])),
        *_settings(plain_settings),
    ]

    def show(to: Console) -> None:
        print_pairs(to, pairs, title=str(path))
        to.print()
        detecting.print_areas(to, detector.comparison_, {})

    out.result(payload, show)


def _map_info(out: Output, path: Path) -> None:
    from diabolo.cli.detect_map import about_map, told_of_map
    from diabolo.persistence import MAP, read_model

    fitted = detecting.load_map(path)
    header, _ = read_model(path, MAP)
    payload = {
        "model": path,
        "kind": "map",
        "estimator": type(fitted).__name__,
        "bytes": path.stat().st_size,
        "versions": header["versions"],
        "settings": {key: value for key, value in header["params"].items() if key != "estimator"},
        **about_map(fitted),
    }
    pairs = [
        ("kind", "map of anomalies in images"),
        *told_of_map(payload),
        ("file", f"{payload['bytes']:,} bytes"),
        ("written by", _versions(payload["versions"])),
        *_settings(payload["settings"]),
    ]
    out.result(payload, lambda to: print_pairs(to, pairs, title=str(path)))


def _settings(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a detector's parameters as text; its threshold may have been set anew since fit."""
    asked = {"false_alarm_rate": " when fitted; the threshold above is what holds"}
    return [(key, _told(value) + asked.get(key, "")) for key, value in found.items()]


def _versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in found.items())


def _kept(trained: Mapping[str, Any]) -> str:
    """Say which epoch's weights the file holds."""
    if not trained["best_epoch"]:
        return "the start"
    stage = str((trained["last"] or {}).get("stage", "end_to_end"))
    return f"epoch {trained['best_epoch']}" + ("" if stage == "end_to_end" else f" of {stage}")


def _told(value: Any) -> str:
    """Return one entry of a recipe as text."""
    if isinstance(value, dict):
        settings = ", ".join(f"{key}={_told(item)}" for key, item in value.items() if key != "name")
        return f"{value.get('name', '')}({settings})" if settings else str(value.get("name", ""))
    if isinstance(value, list):
        return ", ".join(_told(item) for item in value) or "none"
    return "none" if value is None else str(value)


def diagram(
    out: Output,
    parameters: ParameterOptions,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the picture goes: .svg or .png.")
    ],
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL", help="A model file that `train` wrote; or give --kind.", show_default=False
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            "-k",
            metavar="KIND",
            help="Draw this kind instead of a model file, with the parameters below.",
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            metavar="N|H,W",
            help="With --kind: how many values a sample has, or its shape. (default: 784)",
        ),
    ] = None,
) -> None:
    """Draw the layers of a model as an hourglass, or those of a kind with the parameters given."""
    output = check_place(output, (".svg", ".png"))
    chosen = given(parameters)
    if (model is None) == (kind is None):
        raise InvalidParameterError(
            f"diagram must be given a model file or a kind; got {'neither' if model is None else 'both'}. "
            "Give MODEL or --kind."
        )
    if model is not None:
        if chosen or features is not None:
            names = ", ".join([*chosen, *(["features"] if features is not None else [])])
            raise InvalidParameterError(
                f"The settings of a model file must be left as they are; got {names}. "
                "Give --kind instead of MODEL to draw another."
            )
        estimator = inputs.load_model(model)
    else:
        estimator = _sketch(check_kind(str(kind)), sizes("features", features or "784") or (), chosen)
    estimator.diagram().save(output)
    out.result({"output": output}, lambda to: to.print(f"{output}: drawn", soft_wrap=True))


def _sketch(kind: str, shape: tuple[int, ...], parameters: dict[str, Any]) -> Autoencoder:
    """Return an estimator of this kind that has its architecture, after one step on noise."""
    import numpy as np

    if kind == "convolutional" and len(shape) == 1 and "input_shape" not in parameters:
        side = round(shape[0] ** 0.5)
        shape = (side, side) if side * side == shape[0] else shape
    quick = {"validation_fraction": 0.0, "random_state": 0, "device": "cpu"}
    X = np.random.default_rng(0).random((32, *shape), dtype=np.float32)
    estimator = make_estimator(kind, {**parameters, **quick})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a training that nobody asked for
        estimator.partial_fit(X)
    return estimator
