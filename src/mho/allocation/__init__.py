"""Where noise may be, so that joules are not: read time, reads and converter bits a layer or an output channel. See
README.md of this folder."""

from mho.allocation.load import Load, Price, Setting, Shares, harm, spent_J, today
from mho.allocation.plan import plan
from mho.allocation.prices import loads
from mho.allocation.search import Allocation, Step, allocate
from mho.allocation.sensitivity import Channels, Sensitivity, sensitivities
from mho.allocation.settings import applied

__all__ = [
    "Allocation",
    "Channels",
    "Load",
    "Price",
    "Sensitivity",
    "Setting",
    "Shares",
    "Step",
    "allocate",
    "applied",
    "harm",
    "loads",
    "plan",
    "sensitivities",
    "spent_J",
    "today",
]
