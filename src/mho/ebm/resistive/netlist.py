"""A layered network as an ngspice deck: resistors, Shockley diodes, amplifiers and sources written out one by one."""

import torch
from torch import Tensor

from mho.ebm.resistive.network import Conductances, Layered, check_conductances, check_inputs
from mho.errors import InputError

RAW_FILE = "out.raw"
_KELVIN_AT_0_C = 273.15


def node_names(net: Layered) -> list[str]:
    """Names of the solved nodes in the deck, layer by layer."""
    return [f"l{layer}_{k}" for layer, size in enumerate(net.sizes, start=1) for k in range(size)]


def deck(
    net: Layered, g_uS: Conductances, x: Tensor, injected_uA: Tensor | None = None, *, raw_file: str = RAW_FILE
) -> str:
    """The deck that solves ``net`` for every row of ``x`` [batch, inputs] (V) and writes ``v(l1_0)`` ... to a raw file.

    One operating point a row, as a sweep of the node ``k`` = 0 ... batch - 1. An amplifier is a voltage source of gain
    A and a current source that draws b times its current from the node before. ``injected_uA`` [batch, outputs]:
    currents into the outputs. Raises :class:`InputError` for ideal diodes, which ngspice does not have.
    """
    check_conductances(net, g_uS)
    check_inputs(net, x)
    if net.diode is None:
        raise InputError("deck: ngspice has no ideal diode. Fix: Layered(..., diode=Shockley(...)).")
    lines = ["* deep resistive network", f"vhigh1 high1 0 {net.rail_V!r}", f"vlow1 low1 0 {-net.rail_V!r}"]
    lines += [f"vhigh2 high2 0 {net.inner_rail_V!r}", f"vlow2 low2 0 {-net.inner_rail_V!r}"]
    lines += [f"vup up 0 {net.diode.bias_V!r}", f"vdown down 0 {-net.diode.bias_V!r}"]
    columns = x.detach().double().t()
    for number, values in enumerate([*columns, *(-columns)]):
        lines.append(_swept(f"bs{number}", f"s{number}", values, "V"))
    for layer in range(1, len(net.sizes) + 1):
        lines += _layer(net, layer, g_uS[f"layer{layer}"])
    if injected_uA is not None:
        last = len(net.sizes)
        for k, values in enumerate(injected_uA.detach().double().t() * 1e-6):
            lines.append(_swept(f"bi{k}", f"l{last}_{k}", values, "I"))
    saved = " ".join(f"v({name})" for name in node_names(net))
    celsius = net.diode.temperature_K - _KELVIN_AT_0_C
    lines += [
        # tnom = temp: the saturation current is that at this temperature, not moved there from 27 C.
        f".model clamp d is={net.diode.saturation_A!r} n={net.diode.ideality!r} rs=0 bv=1e6 tnom={celsius!r}",
        "vk k 0 0",
        f".options noacct temp={celsius!r} reltol=1e-9 abstol=1e-18 vntol=1e-13 gmin=1e-18",
        ".control",
        f"save {saved}",
        f"dc vk 0 {len(x) - 1} 1",
        f"write {raw_file}",
        "quit",
        ".endc",
        ".end",
        "",
    ]
    return "\n".join(lines)


def _swept(name: str, node: str, values: Tensor, kind: str) -> str:
    points = [*values.tolist(), float(values[-1])]  # a line needs two ends
    table = ",".join(f"{k},{value!r}" for k, value in enumerate(points))
    return f"{name} {f'0 {node} I' if kind == 'I' else f'{node} 0 V'}=pwl(v(k),{table})"


def _layer(net: Layered, layer: int, g: Tensor) -> list[str]:
    far = g.shape[1]
    plain = layer == 1
    lines = []
    if not plain:
        for i in range(far - 2):
            before = f"l{layer - 1}_{i}"
            lines += [
                f"e{layer}_{i} e{layer}_{i} 0 {before} 0 {net.voltage_gain!r}",
                f"va{layer}_{i} e{layer}_{i} a{layer}_{i} 0",
                f"f{layer}_{i} {before} 0 va{layer}_{i} {net.back_gain!r}",
            ]
    names = [f"s{i}" if plain else f"a{layer}_{i}" for i in range(far - 2)] + (
        ["high1", "low1"] if plain else ["high2", "low2"]
    )
    for k, row in enumerate(g.detach().double().tolist()):
        # An open circuit is nothing at all.
        lines += [
            f"r{layer}_{k}_{i} {names[i]} l{layer}_{k} {1e6 / value!r}" for i, value in enumerate(row) if value > 0
        ]
    signs = net.signs(layer)
    if signs is not None:
        for k, sign in enumerate(signs.tolist()):
            ends = f"up l{layer}_{k}" if sign > 0 else f"l{layer}_{k} down"
            lines.append(f"d{layer}_{k} {ends} clamp")
    return lines


def node_tensor(net: Layered, states: tuple[Tensor, ...]) -> Tensor:
    """States as one tensor [batch, nodes] in the order of :func:`node_names`."""
    return torch.cat(states, 1)


__all__ = ["RAW_FILE", "deck", "node_names", "node_tensor"]
