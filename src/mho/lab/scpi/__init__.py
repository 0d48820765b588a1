"""A bench of source-measure units through PyVISA as a device. See README.md."""

from mho.lab.scpi.bench import ScpiBench
from mho.lab.scpi.connect import open_bench
from mho.lab.scpi.layout import BenchLayout, Commands

__all__ = ["BenchLayout", "Commands", "ScpiBench", "open_bench"]
