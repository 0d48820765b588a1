"""Energy of one analog-to-digital conversion, by the survey of what has been built.

    low        E = 0.267 pJ + 0.1446 aJ 4^ENOB                           the envelope: the three best, a bound
    typical    medians since 2018 of bins of 2 bits, geometrically between them, 4 times a bit above the last
    high       E = max(FOM_W 2^ENOB, 10^((SNDR - FOM_S) / 10) / 2)       medians of all years
    rate       x 10^(max(0, cap - FOM_S(f)) / 10),  FOM_S(f) = 213.78 - 2.8719 ln f dB,  cap = 128.4 + 3.2 ENOB

Envelope and medians differ by 10 to 100 times. Past the knee (where noise and not logic costs the energy) all rise by
4 times a bit.
"""

import math

from mho.costs.constants import (
    ADC_CAP_BIT_DB,
    ADC_CAP_DB,
    ADC_FLOOR_PJ,
    ADC_MEDIANS,
    ADC_NOISE_AJ,
    ADC_RATE_DB,
    ADC_RATE_SLOPE_DB,
    ADC_SCHREIER_DB,
    ADC_WALDEN_FJ,
    spread,
)
from mho.costs.spread import Spread
from mho.errors import HardwareError
from mho.hardware.cost import AdcCost
from mho.hardware.spec import Adc


def sndr_dB(enob: float) -> float:
    """SNDR = 6.02 ENOB + 1.76 dB: a full-scale sine (IEEE Std 1241)."""
    return 20 * enob * math.log10(2) + 10 * math.log10(1.5)


def envelope_J(enob: float) -> float:
    """The survey's lower envelope, J a conversion at the Nyquist rate."""
    return ADC_FLOOR_PJ.value.typical * 1e-12 + ADC_NOISE_AJ.value.typical * 1e-18 * 4**enob


def recent_J(enob: float) -> float:
    """The usual converter since 2018, J a conversion."""
    knots = sorted(ADC_MEDIANS)
    if enob >= knots[-1]:
        return ADC_MEDIANS[knots[-1]].value.typical * 1e-12 * 4 ** (enob - knots[-1])
    above = next((k for k in knots[1:] if enob < k), knots[-1])
    below = knots[knots.index(above) - 1]
    first, second = ADC_MEDIANS[below].value.typical, ADC_MEDIANS[above].value.typical
    return float(first * 1e-12 * (second / first) ** ((enob - below) / (above - below)))


def median_J(enob: float) -> float:
    """The usual converter of all years, J: Walden's figure of merit below the knee, Schreier's above."""
    noise = 10 ** ((sndr_dB(enob) - ADC_SCHREIER_DB.value.typical) / 10) / 2
    return float(max(ADC_WALDEN_FJ.value.typical * 1e-15 * 2**enob, noise))


def rate_factor(enob: float, rate_Hz: float) -> float:
    """By how much a conversion costs more at ``rate_Hz`` (one converter) than at a low rate; 1 where it does not."""
    reached = ADC_RATE_DB.value.typical - ADC_RATE_SLOPE_DB.value.typical * math.log(rate_Hz)
    cap = ADC_CAP_DB.value.typical + ADC_CAP_BIT_DB.value.typical * enob
    return float(10 ** (max(0.0, cap - reached) / 10))


def surveyed_J(enob: float, rate_Hz: float | None) -> Spread:
    """Low: envelope; typical and high: medians since 2018 and of all years. ``rate_Hz=None``: at a low rate."""
    found = Spread(envelope_J(enob), recent_J(enob), median_J(enob))
    return found if rate_Hz is None else found * rate_factor(enob, rate_Hz)


def conversion_J(adc: Adc, cost: AdcCost) -> Spread:
    """One conversion as the ``adc`` that sets the quantisation does it, at the rate of its price list.

    Needs ``adc.bits``; :class:`HardwareError` without. A given energy is scaled from its own bits along the envelope.
    """
    if adc.bits is None:
        raise HardwareError("adc.bits: a converter without bits has no energy. Fix: set adc.bits.")
    enob = adc.bits if adc.enob is None else adc.enob
    if cost.energy_pJ is not None and cost.bits is not None:
        base = spread(cost.energy_pJ) * (1e-12 * envelope_J(enob) / envelope_J(cost.bits))
    else:
        base = surveyed_J(enob, None if cost.conversion_s is None else 1 / cost.conversion_s.typical)
    return base if cost.step_pJ is None else base + spread(cost.step_pJ) * (1e-12 * adc.bits)
