"""What a piece of analog hardware is: frozen data, presets and the loader.

The loader needs pydantic and is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from mho.hardware.cells import (
    Cell,
    CmoReramCell,
    Curve,
    FlashCell,
    GenericCell,
    PcmCell,
    PhotonicCell,
    ReramCell,
    SramCell,
)
from mho.hardware.cost import (
    AdcCost,
    ArrayCost,
    Cost,
    DriveCost,
    LogicCost,
    MoveCost,
    ProgrammingCost,
    Quantity,
    TileCost,
)
from mho.hardware.spec import (
    Adc,
    Dac,
    Environment,
    Faults,
    Hardware,
    Mapping,
    Neuron,
    Readout,
    Source,
    Tile,
    Wires,
)
from mho.hardware.update import (
    ConstantStep,
    ExponentialStep,
    LinearStep,
    PiecewiseStep,
    PowerStep,
    PulsedDevice,
    SoftBounds,
)

if TYPE_CHECKING:
    from mho.hardware.load import dump_hardware, load_hardware, preset_names

_LAZY = ("dump_hardware", "load_hardware", "preset_names")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from mho.hardware import load

        return getattr(load, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Adc",
    "AdcCost",
    "ArrayCost",
    "Cell",
    "CmoReramCell",
    "ConstantStep",
    "Cost",
    "Curve",
    "Dac",
    "DriveCost",
    "Environment",
    "ExponentialStep",
    "Faults",
    "FlashCell",
    "GenericCell",
    "Hardware",
    "LinearStep",
    "LogicCost",
    "Mapping",
    "MoveCost",
    "Neuron",
    "PcmCell",
    "PhotonicCell",
    "PiecewiseStep",
    "PowerStep",
    "ProgrammingCost",
    "PulsedDevice",
    "Quantity",
    "Readout",
    "ReramCell",
    "SoftBounds",
    "Source",
    "SramCell",
    "Tile",
    "TileCost",
    "Wires",
    "dump_hardware",
    "load_hardware",
    "preset_names",
]
