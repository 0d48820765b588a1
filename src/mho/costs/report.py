"""What a network costs: numbers by layer and part, with their doubt, beside floors and the digital network."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, final

from mho.costs.constants import Constant
from mho.costs.counts import Counts, Layout
from mho.costs.digital import DigitalCost
from mho.costs.floors import Floors
from mho.costs.meter import Measured, NotMeasured
from mho.costs.spread import NOTHING, Spread
from mho.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

MEASURED_TOPS_PER_W = 12.4
"""The most that a whole chip was measured at with 8 bits: 2.5 to 12.4 TOPS/W (Le Gallo 2023, Ambrogio 2023)."""
SPREAD = ("low", "typical", "high")


@final
@dataclass(frozen=True)
class LayerCost:
    """One weight. ``counts``: of the whole example; energies, times and floors: of one inference.

    ``energy_J``: by part, empty where the hardware has no prices; ``notes``: what a reader must know.
    """

    name: str
    hardware: str
    counts: Counts
    place: Layout
    energy_J: Mapping[str, Spread]
    latency_s: Spread | None
    area_mm2: Spread | None
    floors: Floors
    mean_conductance_uS: float
    notes: tuple[str, ...] = ()

    @property
    def total_J(self) -> Spread:
        return sum(self.energy_J.values(), NOTHING)


@final
@dataclass(frozen=True)
class EnergyReport:
    """The costs of one inference of ``model``.

    ``inferences``: of the example; ``other_macs``, ``other_J``: products that no crossbar holds (attention scores,
    digital layers), at int8 in the same process; ``static_J``: power that flows all the while; ``programming_J``:
    writing all weights once, paid off over ``uses`` inferences where they are given; ``digital``: the same network in
    digital logic; ``measured``: of it, by a counter; ``left_out``: what no sum here holds.
    """

    model: str
    inferences: int
    layers: tuple[LayerCost, ...]
    other_macs: float
    other_J: Spread | None
    static_J: Spread | None
    programming_J: Spread | None
    uses: float | None
    digital: tuple[DigitalCost, ...]
    process: str
    measured: Measured | NotMeasured | None
    constants: tuple[Constant, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def priced(self) -> tuple[LayerCost, ...]:
        """The layers whose hardware has prices."""
        return tuple(layer for layer in self.layers if layer.energy_J)

    @property
    def complete(self) -> bool:
        """Whether every layer has a price."""
        return len(self.priced) == len(self.layers)

    @property
    def macs(self) -> float:
        """Multiply-adds of one inference on the priced layers."""
        return sum(layer.counts.macs for layer in self.priced) / self.inferences

    @property
    def parts_J(self) -> dict[str, Spread]:
        """J an inference by part, over all layers, and what no layer has."""
        found: dict[str, Spread] = {}
        for layer in self.priced:
            for part, value in layer.energy_J.items():
                found[part] = found.get(part, NOTHING) + value
        return found | self.beside_J

    @property
    def beside_J(self) -> dict[str, Spread]:
        """J an inference of what belongs to no layer: digital rest, static power, programming where it is paid off."""
        if not self.priced:
            return {}
        extra = {"digital rest": self.other_J, "static": self.static_J}
        if self.programming_J is not None and self.uses is not None:
            extra["programming"] = self.programming_J * (1 / self.uses)
        return {part: value for part, value in extra.items() if value is not None}

    @property
    def total_J(self) -> Spread | None:
        """J an inference; ``None`` where nothing has a price."""
        parts = self.parts_J
        return sum(parts.values(), NOTHING) if parts else None

    @property
    def tops_per_W(self) -> Spread | None:
        """Two operations a multiply-add of the priced layers, over all joules, 10^12 a J."""
        total = self.total_J
        return None if total is None or total.low <= 0 else total.over(2e-12 * self.macs)

    @property
    def fJ_per_mac(self) -> Spread | None:
        """All joules over the multiply-adds of the priced layers."""
        total = self.total_J
        return None if total is None or not self.macs else total * (1e15 / self.macs)

    @property
    def latency_s(self) -> Spread | None:
        """Seconds of one inference, layer after layer."""
        times = [layer.latency_s for layer in self.priced if layer.latency_s is not None]
        return sum(times, NOTHING) if times else None

    @property
    def interval_s(self) -> Spread | None:
        """Seconds between results where all layers work on different inputs: the slowest layer's."""
        times = [layer.latency_s for layer in self.priced if layer.latency_s is not None]
        return Spread(*(max(getattr(t, k) for t in times) for k in SPREAD)) if times else None

    @property
    def area_mm2(self) -> Spread | None:
        """Area of all tiles of the priced layers; ``None`` where that of a part is missing (``left_out`` names it)."""
        areas = [layer.area_mm2 for layer in self.priced if layer.area_mm2 is not None]
        return sum(areas, NOTHING) if areas and len(areas) == len(self.priced) else None

    @property
    def floors(self) -> Floors:
        """Bounds of all layers together; of those that have one."""

        def total(key: str) -> float | None:
            known = [v for v in (getattr(layer.floors, key) for layer in self.layers) if v is not None]
            return sum(known) if known else None

        return Floors(total("converters_J"), total("column_J"), total("erasure_J"))

    def against(self, format: str) -> Spread | None:
        """Joules of the digital network in ``format`` over the analog one's; low: the worst for analog.

        Raises :class:`InputError` for a format that is not counted.
        """
        totals = {d.format: d.total_J for d in self.digital}
        if format not in totals:
            raise InputError(f"EnergyReport: format {format!r}: must be one of {', '.join(totals)}.")
        ours, theirs = self.total_J, totals[format]
        if ours is None or not self.complete or ours.low <= 0:
            return None
        return Spread(theirs.low / ours.high, theirs.typical / ours.typical, theirs.high / ours.low)

    def verdict(self, format: str) -> str:
        """Whether analog needs less than the digital network in ``format``, and what decides it, in a sentence.

        Accuracy is the reader's to compare: the sentence holds for the network as it is. Raises :class:`InputError` for
        a format that is not counted.
        """
        ratio = self.against(format)
        if ratio is None:
            return f"No verdict against {format}: {self.no_verdict}."
        part, share = self.largest
        if ratio.low > 1:
            found = f"analog needs less energy than {format} even at its worst"
        elif ratio.high < 1:
            found = f"analog needs more energy than {format} even at its best"
        else:
            better = "less" if ratio.typical >= 1 else "more"
            found = f"analog needs {better} energy than {format} at typical constants, and they decide"
        factor = f"{format} over analog {ratio.typical:.3g}, {ratio.low:.3g} to {ratio.high:.3g}"
        return f"In {self.process}, {found} ({factor}); {100 * share:.0f} % of the analog energy is {part}."

    @property
    def no_verdict(self) -> str:
        """Why there is no verdict, where there is none.

        Layers without prices, by their hardware; layers that the example does not use.
        """
        bare: dict[str, list[str]] = {}
        idle = []
        for layer in self.layers:
            if not layer.counts.calls:
                idle.append(layer.name)
            elif not layer.energy_J:
                bare.setdefault(layer.hardware, []).append(layer.name)
        causes = [
            f"no part of hardware {name!r} has a price ({', '.join(layers)}): give them in its [cost] table"
            for name, layers in bare.items()
        ]
        if idle:
            causes.append(f"the example input does not use {', '.join(idle)}: give one that does")
        return "; ".join(causes) or "the analog network may cost nothing at all, low is 0 J"

    @property
    def told(self) -> tuple[str, ...]:
        """Every note of the layers and of the whole as a sentence, each once, with the layers that it is of."""
        layers: dict[str, list[str]] = {}
        for layer in self.layers:
            for note in layer.notes:
                layers.setdefault(note, []).append(layer.name)
        return (*(f"{', '.join(names)}: {note}." for note, names in layers.items()), *(f"{n}." for n in self.notes))

    @property
    def largest(self) -> tuple[str, float]:
        """The part that costs most at typical constants, and its share."""
        parts = {name: value.typical for name, value in self.parts_J.items()}
        whole = sum(parts.values())
        name = max(parts, key=lambda key: parts[key])
        return name, parts[name] / whole if whole else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers and texts."""
        return {
            "model": self.model,
            "process": self.process,
            "inferences": self.inferences,
            "complete": self.complete,
            "macs": self.macs,
            "total_J": _plain(self.total_J),
            "tops_per_W": _plain(self.tops_per_W),
            "fJ_per_mac": _plain(self.fJ_per_mac),
            "latency_s": _plain(self.latency_s),
            "interval_s": _plain(self.interval_s),
            "area_mm2": _plain(self.area_mm2),
            "parts_J": {part: _plain(value) for part, value in self.parts_J.items()},
            "floors": asdict(self.floors),
            "programming_J": _plain(self.programming_J),
            "uses": self.uses,
            "layers": [_layer(layer) for layer in self.layers],
            "digital": [
                {
                    "format": d.format,
                    "total_J": _plain(d.total_J),
                    "arithmetic_J": _plain(d.arithmetic_J),
                    "memory_J": _plain(d.memory_J),
                    "weights_in_dram": d.weights_in_dram,
                }
                for d in self.digital
            ],
            "measured": _counted(self.measured, self.inferences),
            "constants": [asdict(c) for c in self.constants],
            "left_out": list(self.left_out),
            "notes": list(self.notes),
        }

    def to_xarray(self) -> "xr.DataArray":
        """J an inference, [layer, part, spread]; NaN where a part of a layer has no price."""
        import numpy as np
        import xarray as xr

        parts = list(dict.fromkeys(part for layer in self.priced for part in layer.energy_J))
        data = np.full((len(self.layers), len(parts), 3), np.nan)
        for i, layer in enumerate(self.layers):
            for part, value in layer.energy_J.items():
                data[i, parts.index(part)] = [value.low, value.typical, value.high]
        coords = {"layer": [layer.name for layer in self.layers], "part": parts, "spread": list(SPREAD)}
        return xr.DataArray(data, coords, ("layer", "part", "spread"), "energy", {"units": "J", "model": self.model})

    def __str__(self) -> str:
        from mho.costs.text import report_text

        return report_text(self)


def _plain(value: Spread | None) -> dict[str, float] | None:
    return None if value is None else asdict(value)


def _counted(measured: Measured | NotMeasured | None, batch: int) -> dict[str, Any] | None:
    """``joules``: J an inference, ``None`` with its reason where there is no number; ``seconds``: s of all ``runs``, of
    ``batch`` inferences each."""
    if measured is None:
        return None
    if isinstance(measured, NotMeasured):
        return {"joules": None, "unit": "J", "reason": measured.reason}
    return {
        "joules": measured.joules,
        "unit": "J",
        "source": measured.counter,
        "batch": batch,
        "runs": measured.runs,
        "seconds": measured.seconds,
    }


def _layer(layer: LayerCost) -> dict[str, Any]:
    return {
        "name": layer.name,
        "hardware": layer.hardware,
        "counts": asdict(layer.counts),
        "place": asdict(layer.place),
        "energy_J": {part: asdict(value) for part, value in layer.energy_J.items()},
        "latency_s": _plain(layer.latency_s),
        "area_mm2": _plain(layer.area_mm2),
        "floors": asdict(layer.floors),
        "mean_conductance_uS": layer.mean_conductance_uS,
        "notes": list(layer.notes),
    }


__all__ = ["EnergyReport", "LayerCost"]
