"""Settings of the machine that decide how fast a step is: the allocator and the number of threads."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from math import prod

import torch
from torch import Tensor, nn

# below this work per step a second thread costs more than it brings (measured: it halves the speed
# of nets for narrow tables, and pays from about 20 MFLOP on)
_FLOP_FOR_ALL_THREADS = 20e6

# the two parameters of glibc's mallopt: keep blocks up to 1 GiB on the heap, and keep the heap
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_X86 = ("x86_64", "amd64")
_MOST_INPUTS = 8192  # beyond, oneDNN may split a sum among threads, by the number of rows


@cache
def keep_memory() -> bool:
    """Tell glibc's allocator to reuse large blocks instead of returning them to the kernel each time.

    Every tensor over 128 KiB is otherwise mapped and unmapped anew, which costs convolutional nets
    a third of their speed. Done once per process, at the first fit; does nothing on other C
    libraries or where the environment says ``DIABOLO_MALLOC=default``. Returns whether it was done.
    """
    if os.environ.get("DIABOLO_MALLOC") == "default":
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        done = libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):  # musl, macOS, Windows
        return False
    return bool(done)


@contextmanager
def threads_for(flop_per_step: float) -> Iterator[int]:
    """Use one thread for small steps and all of them for large ones; restore the setting afterwards."""
    before = torch.get_num_threads()
    chosen = 1 if flop_per_step < _FLOP_FOR_ALL_THREADS else before
    if chosen != before:
        torch.set_num_threads(chosen)
    try:
        yield chosen
    finally:
        if chosen != before:
            torch.set_num_threads(before)


def load_per_core() -> float:
    """Return how many processes want each core, over the last minute; 0 where the system does not say."""
    if not hasattr(os, "getloadavg"):  # Windows
        return 0.0
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; "auto" is a CUDA GPU where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def has_room(device: torch.device, n_bytes: int) -> bool:
    """Whether data of this size may stay on the device: on a GPU, in half of the memory that is free."""
    return device.type != "cuda" or n_bytes <= torch.cuda.mem_get_info(device)[0] // 2


def flop_per_step(module: nn.Module, sample_shape: Sequence[int], n_rows: int) -> float:
    """Estimate the work of one step: forward and backward take three products per weight and position."""
    flop = 0.0
    for layer in module.modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim >= 2:
            positions = prod(sample_shape) if weight.ndim > 2 else 1
            flop += 6.0 * weight.numel() * n_rows * positions / max(weight.ndim - 1, 1)
    return flop


def has_dnn() -> bool:
    """Whether ``linear`` goes through oneDNN here."""
    return _has_dnn() and getattr(torch.backends.mkldnn, "enabled", True)


@cache
def _has_dnn() -> bool:
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and platform.machine().lower() in _X86
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``x @ weight.T + bias``: x (n, in), weight (out, in), bias (out,). Not for gradients.

    In single precision by oneDNN where it is there: on AMD a tenth faster than MKL where there are many rows,
    a fifth where there are few and many outputs.
    """
    if x.dtype == torch.float32 and x.device.type == "cpu" and x.shape[1] <= _MOST_INPUTS and has_dnn():
        # a bias that is not contiguous would be read as if it were
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias.contiguous(), "none", [], "")  # type: ignore[no-any-return]
    return torch.addmm(bias, x, weight.t())


def multiplies_half(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 natively, so that half precision is faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type == "cpu" and _cpu_multiplies_half()


@cache
def _cpu_multiplies_half() -> bool:
    can = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # not in a torch without oneDNN
    if can is None or not can():
        return False
    if platform.machine().lower() not in _X86:
        return True
    # oneDNN says of such a processor only that it can, by whatever means
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return native is not None and bool(native())
