"""Data in: files of many kinds, data sets by name, and batches.

>>> from diabolo.data import load
>>> load("digits").sample_shape
(8, 8)
"""

from diabolo.data.catalogue import known_names
from diabolo.data.dataset import Dataset
from diabolo.data.folders import ImageFolderSource
from diabolo.data.loading import load
from diabolo.data.opening import open_source
from diabolo.data.parquet import ParquetSource
from diabolo.data.scans import Scan, ScanPlace, find_scans, read_scan, write_map, write_mask
from diabolo.data.shards import ShardSource
from diabolo.data.sources import ArraySource, NpySource, Source

__all__ = [
    "ArraySource",
    "Dataset",
    "ImageFolderSource",
    "NpySource",
    "ParquetSource",
    "Scan",
    "ScanPlace",
    "ShardSource",
    "Source",
    "find_scans",
    "known_names",
    "load",
    "open_source",
    "read_scan",
    "write_map",
    "write_mask",
]
