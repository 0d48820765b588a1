"""From settings to a network: each layer under a description of its own."""

import copy
from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from mho.allocation.load import Setting
from mho.errors import InputError
from mho.hardware.spec import Hardware
from mho.nn.site import analog_layers
from mho.physics.averaging import longer_read, repeated_read
from mho.physics.scaling import with_adc_bits, with_dac_bits


def set_up(hw: Hardware, setting: Setting) -> Hardware:
    """The description of one layer: read time, repeats, bits of both converters, and its columns.

    Raises :class:`HardwareError` for columns of their own on a readout that reads them together.
    """
    found = repeated_read(longer_read(hw, setting.read), setting.repeats)
    found = found if setting.bits is None else with_adc_bits(found, setting.bits)
    found = found if setting.dac_bits is None else with_dac_bits(found, setting.dac_bits)
    if not setting.column_windows and not setting.column_repeats:
        return found
    windows, repeats = setting.column_windows, setting.column_repeats
    return replace(found, readout=replace(found.readout, column_windows=windows, column_repeats=repeats))


def applied(model: nn.Module, settings: Iterable[Setting]) -> nn.Module:
    """A copy of a converted network whose layers are read as ``settings`` say.

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
