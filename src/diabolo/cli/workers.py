"""Several workers: those that torchrun starts, and those of a Ray cluster."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diabolo.cli import inputs, streams
from diabolo.cli.console import Output
from diabolo.cli.options import SourceOptions, StreamOptions
from diabolo.errors import DiaboloError, InvalidDataError, InvalidParameterError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np

    from diabolo import Autoencoder

    Array = np.ndarray[Any, np.dtype[Any]]

_WORKERS = 2
_RESTARTS = 3  # how often Ray starts the workers anew where one was lost
_REFUSED = "refused.json"
_ROWS = 8192  # of a part that a worker encodes, about


@dataclass(frozen=True)
class RayOptions:
    """Whether a Ray cluster does the work."""

    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Let workers of Ray do it: local (a cluster of this machine alone, for this command), auto "
            "(the one that runs here), or HOST:PORT. DATA and every file named must be where all workers and "
            "this machine can read them by the same path.",
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", help=f"Workers of Ray, >= 1. (default: {_WORKERS})"),
    ] = None

    @property
    def count(self) -> int:
        """How many workers."""
        return _WORKERS if self.workers is None else self.workers

    def check(self) -> None:
        """Raise where an option has no effect, or Ray is not there."""
        if self.ray is None:
            if self.workers is not None:
                raise InvalidParameterError(
                    f"--workers must go with --ray; got {self.workers} without it. Add --ray local, or start "
                    f"the command by torchrun --nproc-per-node {self.workers} -m diabolo."
                )
            return
        if self.count < 1:
            raise InvalidParameterError(
                f"--workers must be an integer >= 1; got {self.workers}. Give 1 or more, or "
                f"leave it out for {_WORKERS}."
            )
        if started_by_torchrun():
            raise InvalidParameterError(
                f"--ray must not go with torchrun, which starts workers too; got {self.ray!r}. Leave one out."
            )
        _ray()


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return "MASTER_ADDR" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return not started_by_torchrun() or os.environ.get("RANK", "0") == "0"


def started_anew() -> bool:
    """Whether torchrun started this process because one was lost."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def may_start_anew() -> bool:
    """Whether torchrun started this process, and may do so again."""
    return "TORCHELASTIC_RESTART_COUNT" in os.environ


def check_skipping(broken: str | None, ray: RayOptions) -> None:
    """Raise where several workers would leave out, each for itself, what it cannot read."""
    if broken == "skip" and (ray.ray is not None or started_by_torchrun()):
        raise InvalidParameterError(
            "--broken must be refuse where several workers read DATA; got skip, by which each would leave "
            "out what it alone cannot read. Remove what is broken, or do without --ray and torchrun."
        )


def _ray() -> Any:
    """Return the module; it sends nothing to its makers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
        import ray.train.torch
    except ImportError as error:
        raise MissingExtraError("--ray", "ray[train,data]", "ray") from error
    return ray


@contextmanager
def cluster(options: RayOptions) -> Iterator[Any]:
    """Connect to the cluster, and part from it in the end.

    Raises
    ------
    InvalidParameterError
        Where there is none at the address, or it has too few processors.
    """
    ray = _ray()
    assert options.ray is not None
    own: dict[str, Any] = {"num_cpus": options.count + 1} if options.ray == "local" else {}
    if own:
        own["include_dashboard"] = False
    try:
        if ":" in options.ray:  # Ray itself would ask for a minute
            host, _, port = options.ray.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address=options.ray, log_to_driver=False, logging_level="ERROR", **own)
    except (OSError, ValueError, RuntimeError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InvalidParameterError(
            f"--ray must be the address of a cluster that runs; got {options.ray!r} ({said}). Start one with "
            "'ray start --head', or give --ray local."
        ) from error
    if threading.current_thread() is threading.main_thread():  # Ray's own handler would dump the stack
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        there = int(ray.cluster_resources().get("CPU", 0))
        if there < options.count:
            raise InvalidParameterError(
                f"--workers must be at most the cluster's processors, {there}; got {options.count}. "
                "Give fewer, or start the cluster with more (ray start --num-cpus)."
            )
        yield ray
    finally:
        ray.shutdown()


def train_on_ray(
    options: RayOptions,
    work: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    device: str,
    folder: Path,
) -> None:
    """Let the workers of a cluster run ``work(settings)`` as one group of torch.distributed.

    Where one is lost all are started anew, up to three times; ``work`` has to go on from its checkpoint.
    ``folder`` is one that all of them see; meanwhile Ray keeps its own state in a new one inside, which
    ``settings`` has as "storage".
    """
    with _passing(folder, ".ray-") as storage, cluster(options) as ray:
        enough = ray.cluster_resources().get("GPU", 0) >= options.count
        trainer = ray.train.torch.TorchTrainer(
            work,
            train_loop_config={**settings, "storage": storage},
            scaling_config=ray.train.ScalingConfig(
                num_workers=options.count, use_gpu=device == "cuda" or (device == "auto" and enough)
            ),
            run_config=ray.train.RunConfig(
                name="diabolo",
                storage_path=str(storage),
                failure_config=ray.train.FailureConfig(max_failures=_RESTARTS),
            ),
        )
        try:
            trainer.fit()
            if (storage / _REFUSED).exists():
                usage, said = json.loads((storage / _REFUSED).read_text())
                raise InvalidParameterError(said) if usage else DiaboloError(said)
        except ray.train.TrainingFailedError as error:
            raise _reason(error) from error


def everywhere(data: str, source: SourceOptions) -> tuple[str, SourceOptions]:
    """Return DATA and how it is read by paths that do not depend on the folder of the process."""
    place, home = Path(data).expanduser(), source.data_home
    whole = str(place.resolve()) if place.exists() else data
    return whole, replace(source, data_home=None if home is None else home.expanduser().resolve())


@contextmanager
def refusing(storage: Path) -> Iterator[bool]:
    """Keep what a worker refuses to do, so that it is not tried again; hand out whether one has refused."""
    note = storage / _REFUSED
    try:
        yield note.exists()
    except DiaboloError as error:
        note.write_text(json.dumps([isinstance(error, InvalidParameterError), str(error)]))
        raise


@contextmanager
def folder_for_ray(kept: Path | None, output: Path) -> Iterator[Path]:
    """Hand out the folder of checkpoints, one that all workers see: ``kept``, or a passing one."""
    if kept is not None:
        yield kept.resolve()
        return
    with _passing(output.parent, f".{output.name}.") as folder:
        yield folder


@contextmanager
def _passing(parent: Path, prefix: str) -> Iterator[Path]:
    """Hand out a new folder in ``parent``, removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def encode_on_ray(
    options: RayOptions, model: Path, width: int, n_parts: int, settings: dict[str, Any]
) -> Iterator[Array]:
    """Let workers of a cluster encode ``n_parts`` parts of the data; hand the codes out in order."""
    with cluster(options) as ray:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        parts = ray.data.range(n_parts, override_num_blocks=n_parts).map_batches(
            Encoder,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(options.count, n_parts)),
            fn_constructor_kwargs={"model": str(model), "width": width, **settings},
        )
        try:
            for batch in parts.iter_batches(batch_size=None):
                yield batch["codes"]
        except ray.exceptions.RayError as error:
            raise _reason(error) from error


def _reason(error: Exception) -> Exception:
    """Return the worker's own error where it is one of ours, else Ray's."""
    seen: list[BaseException] = [*getattr(error, "worker_failures", {}).values(), error]
    for one in seen:
        if isinstance(one, DiaboloError):
            return one
        seen += [
            inner
            for inner in (getattr(one, "_base_exc", None), getattr(one, "cause", None), one.__cause__)
            if isinstance(inner, BaseException) and inner not in seen
        ]
    return error


class Encoder:
    """What a worker of Ray keeps: the model, and how far it has read the data."""

    def __init__(
        self,
        model: str,
        width: int,
        data: str,
        source: SourceOptions,
        options: StreamOptions,
        split: str | None,
    ) -> None:
        self._model, self._width = inputs.load_model(Path(model)), width
        self._data, self._source, self._options, self._split = data, source, options, split
        self._size = part_rows(self._model)
        self._next = 0
        self._parts: Iterator[Array] = iter(())

    def __call__(self, batch: dict[str, Array]) -> dict[str, Array]:
        """Map the numbers of parts to the codes of their rows."""
        import numpy as np

        found = [self._codes(int(number)) for number in batch["id"]]
        return {"codes": np.concatenate(found)}

    def _codes(self, number: int) -> Array:
        import numpy as np

        from diabolo.data.sources import ArraySource

        if number < self._next or not self._next:
            self._parts, self._next = self._read(), 0
        for rows in self._parts:
            self._next += 1
            if self._next > number:
                try:
                    return self._model.transform(ArraySource(rows))
                except InvalidDataError as error:
                    raise InvalidDataError(
                        f"{error} (Rows are counted from row {number * self._size}.)"
                    ) from None
        return np.zeros((0, self._width), dtype=np.float32)  # pictures that could not be read were left out

    def _read(self) -> Iterator[Array]:
        quiet = Output(quiet=True)
        stream = streams.open_for(quiet, self._model, self._data, self._source, self._options)
        if stream is not None:
            yield from stream.batches(self._size)
            return
        dataset = inputs.load_for(quiet, self._model, self._data, self._source)
        X, _ = inputs.pick(dataset, self._split, default="train")
        for start in range(0, len(X), self._size):
            yield X[start : start + self._size]


def part_rows(model: Autoencoder) -> int:
    """Return the rows of a part: whole batches of inference, so that the codes are one process's."""
    size = model._rows_per_batch()
    return max(1, _ROWS // size) * size
