"""What one shows: several kinds compared with PCA, and one self-contained HTML page."""

from __future__ import annotations

from diabolo.report.compare import Comparison, compare
from diabolo.report.page import write_report

__all__ = ["Comparison", "compare", "write_report"]
