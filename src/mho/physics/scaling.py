"""A whole description with its randomness turned up or down, or with other converter bits."""

import math
from dataclasses import replace

from mho.errors import HardwareError
from mho.hardware.spec import Hardware
from mho.physics.cells import scale_noise


def scale_hardware_noise(hw: Hardware, factor: float) -> Hardware:
    """``hw`` with the standard deviation of every random source multiplied by ``factor`` >= 0.

    Cells, mismatch of converters and neurons, output noise, missing effective bits, thermal and shot
    noise. Deterministic effects (levels, quantisation, clipping, mean drift, wires) and the shares of
    faults stay. Thermal noise is scaled through the temperature, its variance being proportional to it.
    """
    if not 0 <= factor < float("inf"):
        raise HardwareError(f"{hw.name}: noise factor = {factor!r}: must be finite and not negative.")
    if factor == 1:
        return hw
    dac, adc, neuron = hw.dac, hw.adc, hw.neuron
    if dac is not None:
        dac = replace(dac, gain_d2d=dac.gain_d2d * factor)
    if adc is not None:
        enob = adc.enob
        if enob is not None and adc.bits is not None:
            # sigma^2 = FS^2/12 (4^-enob - 4^-bits), scaled by factor^2 and solved for enob.
            lacking = (4.0**-enob - 4.0**-adc.bits) * factor**2 + 4.0**-adc.bits
            enob = None if factor == 0 else -math.log(lacking, 4.0)
        if enob is not None and enob <= 0:
            raise HardwareError(f"{hw.name}: noise factor = {factor!r} leaves the ADC no effective bit.")
        adc = replace(adc, enob=enob, gain_d2d=adc.gain_d2d * factor, offset_d2d_lsb=adc.offset_d2d_lsb * factor)
    if neuron is not None:
        neuron = replace(neuron, gain_d2d=neuron.gain_d2d * factor, offset_d2d=neuron.offset_d2d * factor)
    readout, environment = hw.readout, hw.environment
    if readout.thermal or readout.fano:
        if readout.fano * factor**2 > 1:
            raise HardwareError(f"{hw.name}: noise factor = {factor!r} asks for more than full shot noise.")
        readout = replace(readout, fano=readout.fano * factor**2, thermal=readout.thermal and factor > 0)
        if readout.thermal:
            environment = replace(environment, temperature_K=environment.temperature_K * factor**2)
    return replace(
        hw,
        cell=scale_noise(hw.cell, factor),
        dac=dac,
        adc=adc,
        neuron=neuron,
        output_noise=hw.output_noise * factor,
        readout=readout,
        environment=environment,
    )


def with_bits(hw: Hardware, bits: int) -> Hardware:
    """``hw`` with DAC and ADC of ``bits`` bits (0: as described). Effective bits keep their distance to ``bits``."""
    if bits == 0:
        return hw
    return with_adc_bits(with_dac_bits(hw, bits), bits)


def with_dac_bits(hw: Hardware, bits: int) -> Hardware:
    """``hw`` with a DAC of ``bits`` bits, where it has one."""
    return hw if hw.dac is None or hw.dac.bits == bits else replace(hw, dac=replace(hw.dac, bits=bits))


def with_adc_bits(hw: Hardware, bits: int) -> Hardware:
    """``hw`` with an ADC of ``bits`` bits, where it has one. Effective bits keep their distance to ``bits``."""
    adc = hw.adc
    if adc is None or adc.bits == bits:
        return hw
    enob = None if adc.enob is None or adc.bits is None else adc.enob + bits - adc.bits
    if enob is not None and enob <= 0:
        raise HardwareError(f"{hw.name}: {bits} bits leave the ADC no effective bit.")
    return replace(hw, adc=replace(adc, bits=bits, enob=enob))
