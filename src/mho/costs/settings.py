"""The plain settings of a description that enter joules or seconds, listed with where they come from.

    resistive cells   E = V_read^2 t_read sum u g                 readout.v_read_V, readout.t_read_s
    charge            E = C V_supply^2 sum u g / g_max            cell.unit_fF, cell.supply_V
    lines             E = C dV V                                  cost.drive.line_swing_V, cost.drive.line_supply_V
    time              t_read, of every technology                 readout.t_read_s

Their source is that of the description's ``sources`` with the longest key that holds them. Only what this hardware's
sums use is listed: a price of a cell (``cost.array.read_fJ``) takes the place of its voltage or capacitor.
"""

import dataclasses
from collections.abc import Iterable

from mho.costs.constants import OURS, Constant, unit_of
from mho.costs.spread import exactly
from mho.hardware.cells import PhotonicCell, SramCell
from mho.hardware.spec import Hardware, Source


def settings_of(hw: Hardware) -> tuple[Constant, ...]:
    """Those of one priced hardware, named by their dotted key; none without prices."""
    return tuple(_constant(hw, key) for key in _keys(hw))


def settings_of_all(each: Iterable[Hardware]) -> tuple[Constant, ...]:
    """Those of several, once for every description, named ``hardware: key`` as its prices are."""
    named = {hw.name: hw for hw in each}
    return tuple(
        dataclasses.replace(found, name=f"{name}: {found.name}")
        for name, hw in named.items()
        for found in settings_of(hw)
    )


def _keys(hw: Hardware) -> tuple[str, ...]:
    if hw.cost is None:
        return ()
    keys = ["readout.t_read_s"]
    if hw.cost.array.read_fJ is None:
        if isinstance(hw.cell, SramCell):
            keys += ["cell.unit_fF", "cell.supply_V"]
        elif not isinstance(hw.cell, PhotonicCell):
            keys.append("readout.v_read_V")
    if hw.cost.drive.line_fF is not None:
        keys += ["cost.drive.line_swing_V", "cost.drive.line_supply_V"]
    return tuple(keys)


def _constant(hw: Hardware, key: str) -> Constant:
    value: object = hw
    for part in key.split("."):
        value = getattr(value, part)
    assert isinstance(value, (int, float))
    source = _source(hw, key)
    if source is None:
        return Constant(
            key, exactly(value), unit_of(key), OURS, "assumed", note=f"ours: {hw.name} gives no source for it"
        )
    cite = f"description of {hw.name}" if source.cite.startswith("none") else source.cite
    return Constant(key, exactly(value), unit_of(key), cite, source.status, note=source.note)


def _source(hw: Hardware, key: str) -> Source | None:
    """The most particular source that speaks of ``key``."""
    held = [s for s in hw.sources if key == s.key or key.startswith(s.key + ".")]
    return max(held, key=lambda s: len(s.key), default=None)


__all__ = ["settings_of", "settings_of_all"]
