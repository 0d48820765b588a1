"""Image data sets in memory, and batches of them. See README.md of this folder."""

from mho.data.batches import Batches, normalise
from mho.data.dataset import Dataset
from mho.data.load import DATASETS, load_dataset
from mho.data.sources import SOURCES, FileSum, Source

__all__ = ["DATASETS", "SOURCES", "Batches", "Dataset", "FileSum", "Source", "load_dataset", "normalise"]
