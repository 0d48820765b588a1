"""Devices by address, and columns by measurement."""

import pytest
import torch
from lab_devices import HIDDEN

from mho.errors import HardwareError, RangeError, TransportError
from mho.lab import VirtualDevice, connect, measure_columns


def test_a_virtual_chip_by_its_address_is_the_chip_of_its_seed() -> None:
    a, b = connect("virtual:pcm-hermes?seed=7&tiles=3"), connect("virtual:pcm-hermes?seed=8")
    assert a.capabilities().model == "virtual pcm-hermes"
    assert (a.capabilities().tiles, b.capabilities().tiles) == (3, 16)
    assert a.capabilities().serial != b.capabilities().serial


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("bench-3", RangeError, "grpc://HOST:PORT"),
        ("virtual:", RangeError, "not understood"),
        ("virtual:generic?seed=-1", RangeError, "seed = '-1'"),
        ("virtual:generic?sede=1", RangeError, "sede"),
        ("virtual:pcm-herms", HardwareError, "pcm-hermes"),
    ],
)
def test_addresses_that_mean_nothing_say_what_would(address: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        connect(address)


def test_nobody_at_a_grpc_address_is_a_transport_error() -> None:
    with pytest.raises(TransportError):
        connect("grpc://127.0.0.1:1").capabilities()


@pytest.mark.parametrize("tile", [0, 3])
def test_measured_columns_are_those_of_the_chip(tile: int) -> None:
    device = VirtualDevice(HIDDEN, 9, rows=64, cols=32)
    found = measure_columns(device, (tile,))[tile]
    draws = device._draws(tile, "any")
    gain, offset = 1 + 0.2 * draws.adc_gain[0], 4.0 * draws.adc_offset[0] / 127
    assert float((found.gain - gain).abs().max()) < 0.02
    assert float((found.offset - offset).abs().max()) < 0.005
    assert float((torch.ones_like(gain) - gain).abs().max()) > 0.2
