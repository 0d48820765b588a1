"""From a network to what the plan needs to know: what each layer costs, and how it goes with every setting.

The network runs once for each number of DAC bits, which decide what drives the cells; all else is counted anew from
what it did (``mho.costs``), so that a plan is priced as ``mho.energy`` prices the network that it makes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from mho.allocation.load import Load, Price, Shares
from mho.allocation.sensitivity import Channels, Sensitivity
from mho.costs.components import dynamic_J, recounted
from mho.costs.timing import layer_latency_s
from mho.costs.trace import Trace, Traced, tensors_of, trace
from mho.errors import HardwareError, InputError
from mho.hardware.spec import Hardware
from mho.physics.averaging import longer_read, repeated_read
from mho.physics.scaling import with_adc_bits, with_dac_bits

LEAST_BITS, MORE_BITS = 2, 2
"""Fewest bits of a converter that are tried, and how many more than today's."""
Per = Literal["layer", "channel"]


def loads(
    model: nn.Module,
    example: Tensor,
    found: Sequence[Sensitivity],
    *,
    least_bits: int = LEAST_BITS,
    more_bits: int = MORE_BITS,
    dac: bool = False,
) -> tuple[Load, ...]:
    """What each layer costs and harms, from :func:`sensitivities` and an ``example`` input (typical values).

    Converters are priced from ``least_bits`` to ``more_bits`` above today's, ``dac``: those of the rows too.
    Sensitivities of single channels make loads of single channels. Raises :class:`HardwareError` for a hardware without
    prices (nothing can then be saved), and for channels where the readout takes all columns together.
    """
    inputs = tensors_of(example)
    today = trace(model, inputs, lambda hw: hw, len(example))
    for traced in today.sites.values():
        _priced(traced)
    bits = [b for t in today.sites.values() if (b := _dac_bits(t.site.hw)) is not None] if dac else []
    dacs = range(least_bits, max(bits) + more_bits + 1) if bits else ()
    traces = {d: trace(model, inputs, lambda hw, d=d: with_dac_bits(hw, d), len(example)) for d in dacs}  # type: ignore[misc]

    def prices(which: Trace, name: str) -> Price:
        return _price(which.sites[name], _adc_options(today.sites[name].site.hw, least_bits, more_bits), which)

    result = []
    for s in found:
        hw = today.sites[s.name].site.hw
        now, own = prices(today, s.name), _dac_bits(hw)
        load = Load(
            name=s.name,
            white=s.white,
            rounding=s.rounding,
            rest=s.frozen,
            sampled=s.sampled,
            dac=s.dac,
            bits=None if hw.adc is None else hw.adc.bits,
            dac_bits=own,
            array_J=now.array_J,
            adc_J=now.adc_J,
            read_J=now.read_J,
            time_J=now.time_J,
            once_J=now.once_J,
            by_dac={} if own is None else {d: prices(t, s.name) for d, t in traces.items() if d <= own + more_bits},
            shares=None if s.channels is None else _shares(s.name, s.channels, hw),
        )
        result.append(load)
    return tuple(result)


def refuse_channels(name: str, hw: Hardware) -> None:
    """Raise where a readout can do nothing for one output channel alone, and say what it had to be able to do."""
    if hw.readout.columns == "together":
        raise HardwareError(
            f"allocation: {name}: hardware {hw.name!r} reads all columns of a tile together. Way out: per='layer', "
            "or readout.columns = 'timed' in the description of a readout that has an integrator with its own stop for "
            "each column and a switch that disconnects it, 'masked' for one that can only leave single columns out of "
            "a read."
        )


def _priced(traced: Traced) -> None:
    if traced.site.hw.cost is None:
        raise HardwareError(
            f"allocation: hardware {traced.site.hw.name!r} of {traced.site.name} has no prices. Way out: a [cost] "
            "table in its description."
        )


def _dac_bits(hw: Hardware) -> int | None:
    return None if hw.dac is None else hw.dac.bits


def _adc_options(hw: Hardware, least: int, more: int) -> tuple[int, ...]:
    bits = None if hw.adc is None else hw.adc.bits
    return () if bits is None else tuple(range(min(least, bits), bits + more + 1))


def _price(traced: Traced, adc_bits: Sequence[int], whole: Trace) -> Price:
    """Differences of what ``mho.energy`` counts: a longer read, a second read, other bits."""
    hw, static_W = traced.site.hw, _static_W(whole)

    def parts(on: Hardware) -> dict[str, float]:
        assert on.cost is not None
        driven = traced.driven_uS * on.readout.repeats
        counted = dynamic_J(recounted(traced, on), traced.place, driven, on, on.cost)
        return {k: v.typical / whole.inferences for k, v in counted.items()}

    def static_J(on: Hardware) -> float:
        assert on.cost is not None
        seconds = layer_latency_s(traced.counts, traced.place, on, on.cost).typical / whole.inferences
        return static_W * seconds

    now, longer, twice = (parts(h) for h in (hw, longer_read(hw, 2.0), repeated_read(hw, 2)))
    array = longer["array"] - now["array"]
    time = static_J(longer_read(hw, 2.0)) - static_J(hw)
    rest = [part for part in now if part not in ("adc", "array")]
    again = math.fsum(twice[part] - now[part] for part in rest)
    return Price(
        array_J=max(0.0, array),
        adc_J={b: parts(with_adc_bits(hw, b))["adc"] for b in adc_bits if _possible(hw, b)},
        read_J=max(0.0, again + now["array"] - array + static_J(hw) - time),
        time_J=max(0.0, time),
        once_J=max(0.0, math.fsum(now[part] for part in rest) - again),
    )


def _possible(hw: Hardware, bits: int) -> bool:
    """Whether an ADC of so many bits has an effective one."""
    assert hw.adc is not None and hw.adc.bits is not None
    return hw.adc.enob is None or hw.adc.enob + bits - hw.adc.bits > 0


def _static_W(whole: Trace) -> float:
    """Typical static power of all tiles, and of each chip once."""
    chips: dict[str, float] = {}
    tiles = 0.0
    for traced in whole.sites.values():
        cost = traced.site.hw.cost
        if cost is not None and cost.tile.static_mW is not None:
            tiles += cost.tile.static_mW.typical * traced.place.tiles
        if cost is not None and cost.chip_static_mW is not None:
            chips[traced.site.hw.name] = cost.chip_static_mW.typical
    return 1e-3 * (tiles + math.fsum(chips.values()))


def _shares(name: str, channels: Channels, hw: Hardware) -> Shares:
    refuse_channels(name, hw)
    parts: Mapping[str, tuple[float, ...]] = {
        k: getattr(channels, k) for k in ("array", "white", "sampled", "rounding")
    }
    if not channels.array:
        raise InputError(f"allocation: {name}: has no output channel.")
    return Shares(columns=hw.readout.columns, **{k: _normal(v) for k, v in parts.items()})


def _normal(values: tuple[float, ...]) -> tuple[float, ...]:
    total = math.fsum(values)
    return tuple(v / total for v in values) if total > 0 else (1 / len(values),) * len(values)
