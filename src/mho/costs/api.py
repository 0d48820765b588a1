"""``mho.energy``: energy, latency and area of a network from the mapping that also sets its noise."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mho.costs.components import at_node, dynamic_J, programming_J, unpriced
from mho.costs.constants import ADD_INT32, HOUSE, MULTIPLY_INT8, Constant, constants_of, spread
from mho.costs.counts import Counts, layout
from mho.costs.digital import FORMATS, Work, baseline
from mho.costs.floors import floors
from mho.costs.meter import Measured, NotMeasured, find_counter, measure
from mho.costs.nodes import is_fitted
from mho.costs.phases import driven
from mho.costs.report import EnergyReport, LayerCost
from mho.costs.settings import settings_of_all
from mho.costs.spread import NOTHING, Spread
from mho.costs.timing import area_mm2, layer_latency_s
from mho.costs.trace import Change, Trace, Traced, tensors_of, trace, weights_of
from mho.errors import ConversionError, InputError
from mho.hardware import load_hardware
from mho.hardware.cost import Cost, Quantity
from mho.hardware.spec import Hardware
from mho.nn.conversion import convert, inspect, to_digital
from mho.nn.site import analog_layers

BASE_NODE_NM, BASE_SUPPLY_V = 45.0, 0.9
"""The process of the digital network where no hardware names one."""
PICO = 1e-12


def energy(
    model: nn.Module,
    example_input: Any,
    hardware: Hardware | str | Callable[[Hardware], Hardware] | None = None,
    *,
    uses: float | None = None,
    inferences: int | None = None,
    measured: bool = False,
) -> EnergyReport:
    """What one inference of ``model`` costs: joules, seconds and area, by layer and part, low, typical and high.

    ``example_input``: a tensor, or a tuple of what the network is called with; real data, for the cells draw what
    its values ask for. ``inferences``: how many it holds (``None``: the size of its first dimension).
    ``hardware``: another description than the network was converted for, or a change of each layer's own; for a
    digital network, what it is converted for (layers that cannot be mapped stay digital, and are named). ``uses``:
    inferences over which programming is paid off. ``measured``: run the digital network under NVML or RAPL too.

    Hardware without prices: counts, floors and the digital network are there, the joules are not. Raises
    :class:`InputError` for an example without numbers or with NaN, :class:`ConversionError` for a digital network
    without ``hardware``, :class:`HardwareError` for logic or buffers without a price in a process that digital energies
    are not known for (with prices of its own there, the digital network is counted at 45 nm, and a note says so).
    """
    inputs = tensors_of(example_input)
    held = _inferences(inputs, inferences)
    if uses is not None and not 0 < uses < float("inf"):
        raise InputError(f"mho.energy: uses = {uses!r}: must be finite and above 0, or None to leave programming out.")
    description = load_hardware(hardware) if isinstance(hardware, str) else hardware
    notes: list[str] = []
    network = model
    if next(analog_layers(model), None) is None:
        network = _converted(model, description, notes)
    change: Change = description if callable(description) else (lambda hw: hw if description is None else description)
    found = trace(network, inputs, change, held)
    layers = [_layer(t, held) for t in found.sites.values()]
    for name, site in found.unused.items():
        layers.append(_unused(name, layout(site.op, site.hw), site.hw))
    costs = _costs(found)
    process, node, supply = _process([cost for _, cost in costs], notes)
    work = [_work(t, held) for t in found.sites.values()]
    other = found.digital_macs / held
    return EnergyReport(
        model=type(model).__name__,
        inferences=held,
        layers=tuple(layers),
        other_macs=other,
        other_J=_int8_mac(node, supply) * other if costs and other else None,
        static_J=_static(found, layers),
        programming_J=_programming(found),
        uses=uses,
        digital=tuple(baseline(work, other, f, node, supply) for f in FORMATS),
        process=process,
        measured=_measure(network, inputs, held) if measured else None,
        constants=(*settings_of_all(t.site.hw for t in found.sites.values()), *_constants(costs)),
        left_out=_left_out(found, network),
        notes=tuple(notes),
    )


def _inferences(inputs: tuple[Any, ...], given: int | None) -> int:
    if given is None:
        first = next(t for t in inputs if isinstance(t, Tensor))
        return first.shape[0] if first.dim() else 1
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise InputError(f"mho.energy: inferences = {given!r}: must be a whole number of at least 1.")
    return given


def _converted(model: nn.Module, description: object, notes: list[str]) -> nn.Module:
    """A converted copy of a digital network; what is refused stays digital, with a note."""
    if not isinstance(description, Hardware):
        raise ConversionError(
            f"mho.energy: {type(model).__name__} has no analog layer. Way out: mho.convert(model, hardware) first, or "
            "mho.energy(model, example_input, hardware)."
        )
    refused = inspect(model, description).refused
    digital = []
    for row in refused:
        notes.append(f"{row.name or '(root)'} ({row.kind}) is not mapped and counted as digital: {row.reason}")
        digital.append(row.name.rpartition(".")[0] if row.kind == "Parameter" else row.name)
    return convert(model, description, digital=digital)


def _costs(found: Trace) -> dict[tuple[str, Cost], list[str]]:
    """Layers by the name of their hardware and its prices, of those that have any: one name may have several."""
    costs: dict[tuple[str, Cost], list[str]] = {}
    for name, t in found.sites.items():
        if t.site.hw.cost is not None:
            costs.setdefault((t.site.hw.name, t.site.hw.cost), []).append(name)
    return costs


def _process(costs: Iterable[Cost], notes: list[str]) -> tuple[str, float, float]:
    """The process in words, and node (nm) and supply (V) that digital work is counted at.

    That of the first layer where digital energies are known there, else the base, with a note.
    """
    processes = list(dict.fromkeys((cost.node_nm, cost.supply_V) for cost in costs))
    own = processes[0] if processes else (BASE_NODE_NM, BASE_SUPPLY_V)
    fitted = is_fitted(*own)
    node, supply = own if fitted else (BASE_NODE_NM, BASE_SUPPLY_V)
    if not fitted:
        notes.append(
            f"digital energies are not known at {own[0]:g} nm and {own[1]:g} V: the digital network, and what stays "
            f"digital beside the analog layers, are counted at {node:g} nm and {supply:g} V"
        )
    if len(processes) > 1:
        notes.append(f"layers lie on several processes; the digital network is counted at {node:g} nm")
    digital = "" if fitted else f" (digital at {node:g} nm, {supply:g} V)"
    return f"{own[0]:g} nm, {own[1]:g} V{digital}", node, supply


def _layer(traced: Traced, inferences: int) -> LayerCost:
    hw, counts, place = traced.site.hw, traced.counts, traced.place
    notes = list(traced.notes)
    energies: dict[str, Spread] = {}
    latency, area = None, None
    if hw.cost is None:
        notes.append(f"hardware {hw.name!r} has no prices: counts only. Way out: a [cost] table in its description")
    else:
        whole = dynamic_J(counts, place, traced.driven_uS, hw, hw.cost)
        energies = {part: value * (1 / inferences) for part, value in whole.items()}
        latency = layer_latency_s(counts, place, hw, hw.cost) * (1 / inferences)
        area = area_mm2(place, hw, hw.cost)
    # A column's thermal floor is that of the mean over its repeats, however many they are.
    once = place.groups * place.blocks * (place.columns + place.references) * driven(hw).sign_reads
    bounds = floors(hw, counts.conversions, counts.vectors * once, traced.adc_fill)
    return LayerCost(
        name=traced.site.name,
        hardware=hw.name,
        counts=counts,
        place=place,
        energy_J=energies,
        latency_s=latency,
        area_mm2=area,
        floors=replace(bounds, **{k: None if v is None else v / inferences for k, v in vars(bounds).items()}),
        mean_conductance_uS=traced.conductance_uS / place.cells if place.cells else 0.0,
        notes=tuple(notes),
    )


def _unused(name: str, place: Any, hw: Hardware) -> LayerCost:
    return LayerCost(
        name,
        hw.name,
        Counts(),
        place,
        {},
        None,
        None,
        floors(hw, 0, 0, None),
        0.0,
        ("the example input does not use it",),
    )


def _work(traced: Traced, inferences: int) -> Work:
    counts = traced.counts
    return Work(
        macs=counts.macs / inferences,
        weights=weights_of(traced.site),
        calls=counts.calls,
        numbers_in=counts.numbers_in / inferences,
        numbers_out=counts.outputs / inferences,
    )


def _int8_mac(node_nm: float, supply_V: float) -> Spread:
    return (at_node(MULTIPLY_INT8, node_nm, supply_V) + at_node(ADD_INT32, node_nm, supply_V)) * PICO


def _static(found: Trace, layers: Iterable[LayerCost]) -> Spread | None:
    """Static power, of all tiles and of each chip once, times the time of one inference.

    Low: that of the slowest layer only, in a pipeline in which all layers work at once on different inputs.
    """
    times = [layer.latency_s for layer in layers if layer.latency_s is not None]
    if not times:
        return None
    power, known = NOTHING, False
    chips: dict[tuple[str, Quantity], None] = {}  # a set in order: sums are the same to the last bit
    for t in found.sites.values():
        cost = t.site.hw.cost
        if cost is None:
            continue
        if cost.chip_static_mW is not None:
            chips[t.site.hw.name, cost.chip_static_mW] = None
        if cost.tile.static_mW is not None:
            power, known = power + spread(cost.tile.static_mW) * (1e-3 * t.place.tiles), True
    for _, static_mW in chips:
        power, known = power + spread(static_mW) * 1e-3, True
    whole = sum(times, NOTHING)
    return power * replace(whole, low=max(t.low for t in times)) if known else None


def _programming(found: Trace) -> Spread | None:
    total: Spread | None = None
    for t in found.sites.values():
        written = None if t.site.hw.cost is None else programming_J(t.place.cells, t.site.hw.cost)
        if written is not None:
            total = written if total is None else total + written
    return total


def _constants(costs: dict[tuple[str, Cost], list[str]]) -> tuple[Constant, ...]:
    """Those of each price list, named by hardware (and layers, where one name has several), and the house's."""
    names = [name for name, _ in costs]
    own = []
    for (name, cost), layers in costs.items():
        owner = name if names.count(name) == 1 else f"{name} ({', '.join(layers)})"
        own += [replace(c, name=f"{owner}: {c.name}") for c in constants_of(cost)]
    return (*own, *HOUSE)


def _left_out(found: Trace, network: nn.Module) -> tuple[str, ...]:
    named = [
        part for t in found.sites.values() if t.site.hw.cost is not None for part in unpriced(t.site.hw, t.site.hw.cost)
    ]
    # Of matrices: biases and scales are in "one operation an output".
    mapped = {*found.sites, *found.unused}
    digital = sum(p.numel() for name, p in network.named_parameters() if p.dim() > 1 and name not in mapped)
    if found.digital_macs or digital:
        of = f" (of its {digital:,} weights too)" if digital else ""
        named.append(f"memory traffic of what no crossbar holds{of}, on both sides and in what fits on the chip")
    always = (
        "normalisation, pooling, softmax and gates beyond one operation an output",
        "input and output of the chip",
        "control, clocks and registers of the digital network",
    )
    return (*dict.fromkeys(named), *always)


def _measure(network: nn.Module, inputs: tuple[Any, ...], inferences: int) -> Measured | NotMeasured:
    """The digital network of the same weights, as torch runs it here, by a counter."""
    digital = to_digital(network).eval()
    device = str(next(t for t in inputs if isinstance(t, Tensor)).device)

    def run() -> None:
        with torch.no_grad():
            digital(*inputs)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    counter = find_counter(device)
    if isinstance(counter, NotMeasured):
        return counter
    with closing(counter):
        answer = measure(run, counter)
    return answer if isinstance(answer, NotMeasured) else replace(answer, joules=answer.joules / inferences)


__all__ = ["energy"]
