"""A small non-linear circuit at rest: resistors, diodes, voltage sources and injected currents, solved by ngspice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from mho.errors import DeviceFault, RangeError
from mho.hardware.fields import NonNegative, Positive, check_fields
from mho.lab.spice.netlist import KELVIN_AT_0_C, RAW_FILE, check_inputs, options, script, swept_source
from mho.lab.spice.run import COMMAND, TIMEOUT_S, simulate

GROUND = 0


@final
@dataclass(frozen=True, kw_only=True)
class Resistor:
    """``g_uS`` between two nodes; 0 is an open circuit."""

    a: int
    b: int
    g_uS: NonNegative

    def __post_init__(self) -> None:
        check_fields(self)


@final
@dataclass(frozen=True, kw_only=True)
class Diode:
    """i = saturation_A (exp(v / (ideality k T / q)) - 1) from anode to cathode, without series resistance."""

    anode: int
    cathode: int
    saturation_A: Positive = 1e-14
    ideality: Positive = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


Element = Resistor | Diode


def _element(number: int, part: Element, temperature_K: float) -> list[str]:
    if isinstance(part, Resistor):
        return [] if part.g_uS == 0.0 else [f"r{number} n{part.a} n{part.b} {1e6 / part.g_uS!r}"]
    # tnom = temp: the saturation current is the one at this temperature, not moved there from 27 C. bv is far away.
    model = f".model d{number} d is={float(part.saturation_A)!r} n={float(part.ideality)!r} rs=0 bv=1e6"
    return [f"d{number} n{part.anode} n{part.cathode} d{number}", f"{model} tnom={temperature_K - KELVIN_AT_0_C!r}"]


def network_deck(
    nodes: int,
    elements: Sequence[Element],
    driven: Sequence[int],
    inputs_V: Tensor,
    injected_uA: Tensor | None = None,
    *,
    temperature_K: float = 300.0,
) -> str:
    """The deck of :func:`solve_network`: one sweep, one point a vector."""
    _check(nodes, elements, driven, inputs_V, injected_uA)
    lines = ["* network", "vground n0 0 0"]
    for number, part in enumerate(elements):
        lines += _element(number, part, temperature_K)
    for node, values in zip(driven, inputs_V.detach().double().t().tolist(), strict=True):
        lines.append(swept_source(f"bd{node}", f"n{node}", values))
    if injected_uA is not None:
        for node, values in enumerate((injected_uA.detach().double() * 1e-6).t().tolist(), start=1):
            lines.append(swept_source(f"bi{node}", f"n{node}", values, current=True))
    saved = " ".join(f"v(n{node})" for node in range(1, nodes + 1))
    run = (f"save {saved}", f"dc vk 0 {len(inputs_V) - 1} 1", f"write {RAW_FILE}")
    return "\n".join([*lines, "vk k 0 0", options(temperature_K), *script(*run)])


def _check(
    nodes: int, elements: Sequence[Element], driven: Sequence[int], inputs_V: Tensor, injected_uA: Tensor | None
) -> None:
    check_inputs(inputs_V, len(driven))
    ends = [_ends(part) for part in elements]
    wrong = sorted({n for pair in ends for n in pair if not GROUND <= n <= nodes} | {n for n in driven if n > nodes})
    if wrong or len(set(driven)) != len(driven) or min(driven, default=1) <= GROUND:
        raise RangeError(
            f"spice: network of nodes 1 to {nodes} and ground 0: unknown {wrong}, driven {list(driven)}. Fix: number "
            "the nodes from 1, drive each once, and not the ground."
        )
    links = [pair for part, pair in zip(elements, ends, strict=True) if isinstance(part, Diode) or part.g_uS > 0.0]
    floating = sorted(set(range(1, nodes + 1)) - _reached({GROUND, *driven}, links))
    if floating:
        raise RangeError(
            f"spice: nodes {floating} have no path to the ground or to a driven node, so that no voltage is theirs. "
            "Fix: connect them with a resistor above 0 uS."
        )
    if injected_uA is not None and injected_uA.shape != (len(inputs_V), nodes):
        raise RangeError(f"spice: injected_uA is {list(injected_uA.shape)}. Fix: [{len(inputs_V)}, {nodes}].")
    if injected_uA is not None and not bool(torch.isfinite(injected_uA).all()):
        raise RangeError("spice: injected_uA has NaN or infinity. Fix: mend the currents; nothing was run.")


def _ends(part: Element) -> tuple[int, int]:
    return (part.a, part.b) if isinstance(part, Resistor) else (part.anode, part.cathode)


def _reached(held: set[int], links: Sequence[tuple[int, int]]) -> set[int]:
    """Nodes with a path to one of ``held``."""
    reached, before = set(held), 0
    while len(reached) > before:
        before = len(reached)
        for a, b in links:
            if a in reached or b in reached:
                reached |= {a, b}
    return reached


def solve_network(
    nodes: int,
    elements: Sequence[Element],
    driven: Sequence[int],
    inputs_V: Tensor,
    injected_uA: Tensor | None = None,
    *,
    temperature_K: float = 300.0,
    timeout_s: float = TIMEOUT_S,
    command: str = COMMAND,
) -> Tensor:
    """Voltages [n, nodes] (V, float64) of nodes 1 ... ``nodes`` against the ground, node 0.

    ``driven``: nodes held at ``inputs_V`` [n, len(driven)]; ``injected_uA`` [n, nodes]: currents into the nodes, for
    instance a nudge of an output. :class:`~mho.errors.RangeError` for a network that does not exist or
    has a node without a path to what holds it; :class:`~mho.errors.DeviceFault` where ngspice finds no operating point.
    """
    deck = network_deck(nodes, elements, driven, inputs_V, injected_uA, temperature_K=temperature_K)
    plots = simulate(deck, timeout_s=timeout_s, command=command)
    points = len(plots[0].values)
    if points != len(inputs_V):
        raise DeviceFault(
            f"spice: {points} of {len(inputs_V)} vectors were solved, the next did not converge. Fix: look at that "
            "vector; give every node a resistor towards the ground."
        )
    return torch.from_numpy(np.stack([plots[0][f"v(n{node})"].real for node in range(1, nodes + 1)], axis=1))
