"""Whether the machine's cores have a cache in common at the moment: a virtual one's do so at times only.

What one core has written the other then reads at half the speed, and everything that two threads do
together is slower; what one thread does is not. Nothing here is used by the package.
"""

from __future__ import annotations

import statistics
import time

import torch

_VALUES = 400_000  # 1.6 MB: what fits into a core's own cache when two share it out
_APART = 1.5  # times as long that reading takes, from which the cores count as apart


def apart(times: int = 25) -> bool:
    """Tell by how long one core takes to read what two have written, beside what it wrote itself."""
    before = torch.get_num_threads()
    if before == 1:
        return False
    x = torch.zeros(_VALUES)
    took: dict[int, list[float]] = {1: [], before: []}
    for _ in range(times):
        for threads, each in took.items():
            torch.set_num_threads(threads)
            x.add_(1.0)
            torch.set_num_threads(1)
            start = time.perf_counter()
            x.sum()
            each.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    return statistics.median(took[before]) > _APART * statistics.median(took[1])
