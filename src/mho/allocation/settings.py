"""From settings to a network, and from a network to what the plan needs to know."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from mho.allocation.plan import Load, Setting
from mho.allocation.sensitivity import Sensitivity
from mho.costs import EnergyReport, energy
from mho.errors import HardwareError, InputError
from mho.hardware.spec import Hardware
from mho.nn.site import analog_layers
from mho.physics.averaging import longer_read
from mho.physics.scaling import with_adc_bits

LEAST_BITS = 2


def set_up(hw: Hardware, setting: Setting) -> Hardware:
    """The description of one layer: its reads ``setting.read`` times as long, its ADC of ``setting.bits`` bits."""
    found = longer_read(hw, setting.read)
    return found if setting.bits is None else with_adc_bits(found, setting.bits)


def applied(model: nn.Module, settings: Iterable[Setting]) -> nn.Module:
    """A copy of a converted network whose layers have the read times and bits of ``settings``.

    Layers are named by their parameter, as in the report of ``mho.energy``; layers that are not named stay. The copy
    trains, is evaluated and is counted as any converted network. Raises :class:`InputError` for an unknown name.
    """
    by_name = {s.name: s for s in settings}
    twin = copy.deepcopy(model)
    known = {site.name for _, layer in analog_layers(twin) for site in layer.sites.values()}
    if unknown := sorted(by_name.keys() - known):
        raise InputError(f"allocation: no analog parameter {unknown[0]!r}. Way out: one of {', '.join(sorted(known))}.")
    for _, layer in analog_layers(twin):
        layer.sites = {
            key: replace(site, hw=set_up(site.hw, by_name[site.name])) if site.name in by_name else site
            for key, site in layer.sites.items()
        }
    return twin


def loads(
    model: nn.Module, example: Tensor, found: Sequence[Sensitivity], *, least_bits: int = LEAST_BITS, more_bits: int = 2
) -> tuple[Load, ...]:
    """What each layer costs and harms, from :func:`sensitivities` and ``mho.energy`` on ``example`` (typical values).

    Converters are priced from ``least_bits`` to ``more_bits`` above today's. Raises :class:`HardwareError` for a
    hardware without prices: nothing can then be saved.
    """
    bits_now = {site.name: _bits(site.hw) for _, layer in analog_layers(model) for site in layer.sites.values()}
    today = energy(model, example)
    _priced(today)
    names = [s.name for s in found]
    most = max((b for b in bits_now.values() if b is not None), default=0) + more_bits
    by_bits = {}
    for bits in range(least_bits, most + 1) if most > more_bits else ():
        settings = [Setting(n, 1.0, None if bits_now[n] is None else bits) for n in names]
        by_bits[bits] = _by_layer(energy(applied(model, settings), example), "adc")
    array = _by_layer(today, "array")
    return tuple(
        Load(
            name=s.name,
            white=s.white,
            rounding=s.rounding,
            rest=s.frozen,
            bits=bits_now[s.name],
            array_J=array.get(s.name, 0.0),
            adc_J={} if bits_now[s.name] is None else {b: part[s.name] for b, part in by_bits.items()},
        )
        for s in found
    )


def _bits(hw: Hardware) -> int | None:
    return None if hw.adc is None else hw.adc.bits


def _by_layer(report: EnergyReport, part: str) -> dict[str, float]:
    return {layer.name: layer.energy_J[part].typical for layer in report.layers if part in layer.energy_J}


def _priced(report: EnergyReport) -> None:
    without = next((layer for layer in report.layers if not layer.energy_J), None)
    if without is not None:
        raise HardwareError(
            f"allocation: hardware {without.hardware!r} of {without.name} has no prices. Way out: a [cost] table in "
            "its description."
        )
