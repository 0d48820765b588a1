"""Where noise may be, so that joules are not: read time and converter bits a layer. See README.md of this folder."""

from mho.allocation.plan import Load, Setting, harm, plan
from mho.allocation.search import Allocation, Step, allocate
from mho.allocation.sensitivity import Sensitivity, sensitivities
from mho.allocation.settings import applied, loads

__all__ = [
    "Allocation",
    "Load",
    "Sensitivity",
    "Setting",
    "Step",
    "allocate",
    "applied",
    "harm",
    "loads",
    "plan",
    "sensitivities",
]
