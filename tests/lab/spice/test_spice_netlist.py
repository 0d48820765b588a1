"""Decks as text: the circuit is the one that was asked for, and what is no circuit is refused. Needs no ngspice."""

import re
from collections import Counter

import pytest
import torch

from mho.errors import HardwareError, RangeError
from mho.lab.spice import AccessMosfet, AccessResistor, crossbar_deck, noise_deck, transient_deck
from mho.rng import uniforms

G = 1.0 + 24.0 * uniforms((3, 4), 0, "g").double()
X = uniforms((2, 3), 0, "x").double()


def count(deck: str) -> Counter[str]:
    """How many elements of each kind: the letters before the first digit of a name."""
    names = (line.split()[0] for line in deck.splitlines() if line and line[0] not in "*.")
    return Counter(match.group() for name in names if (match := re.match(r"(ra|rb|rc|rs|mt|vm|bd|vd|hc)(?=\d)", name)))


def test_every_cell_and_segment_is_there_once() -> None:
    assert count(crossbar_deck(G, X, wire_ohm=2.0)) == {"ra": 12, "rb": 12, "rc": 12, "vm": 4, "bd": 3}


def test_without_resistance_there_are_no_segments() -> None:
    assert count(crossbar_deck(G, X)) == {"rc": 12, "vm": 4, "bd": 3}


def test_an_open_cell_has_no_access_device_either() -> None:
    g = G.clone()
    g[1, 2] = 0.0
    assert count(crossbar_deck(g, X, access=AccessResistor(ohm=1e3)))["rs"] == 11
    assert count(crossbar_deck(g, X, access=AccessMosfet(gate_V=2.0))) == {"mt": 11, "rc": 11, "vm": 4, "bd": 3}


def test_numbers_are_written_to_the_last_bit() -> None:
    g = torch.tensor([[1e6 / 3.0]], dtype=torch.float64)
    resistance = float(re.search(r"rc0_0 \S+ \S+ (\S+)", crossbar_deck(g, X[:, :1])).group(1))  # type: ignore[union-attr]
    assert resistance == 1e6 / float(g)
    table = re.search(r"pwl\(v\(k\),(\S+)\)", crossbar_deck(g, X[:, :1])).group(1)  # type: ignore[union-attr]
    assert [float(v) for v in table.split(",")][1:4:2] == X[:, 0].tolist()


def test_noise_is_asked_for_in_the_order_given() -> None:
    assert re.findall(r"noise v\((\w+)\)", noise_deck(G, [2, 0])) == ["h2", "h0"]


def test_every_resistor_has_a_noise_of_its_own_size_beside_it() -> None:
    deck = transient_deck(G, 10, 1e-9, wire_ohm=2.0, access=AccessResistor(ohm=1e3), temperature_K=310.0)
    parts = [line.split() for line in deck.splitlines()]
    ohms = {p[0]: (p[1:3], float(p[3])) for p in parts if p and p[0][:2] in ("ra", "rb", "rc", "rs")}
    noisy = {p[0]: (p[1:3], float(p[5].removeprefix("trnoise("))) for p in parts if p and p[0].startswith("ir")}
    assert len(ohms) == 48 and set(noisy) == {f"i{name}" for name in ohms}
    for name, (nodes, ohm) in ohms.items():
        assert noisy[f"i{name}"][0] == nodes
        assert noisy[f"i{name}"][1] == pytest.approx((2 * 1.380649e-23 * 310.0 / (ohm * 1e-9)) ** 0.5, rel=1e-12)
    with pytest.raises(RangeError, match="0 samples"):
        transient_deck(G, 0, 1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"g_uS": -G}, "a cell is a resistor"),
        ({"g_uS": G * torch.nan}, "NaN conductance"),
        ({"g_uS": G[0]}, r"Fix: a real \[rows, cols\]"),
        ({"g_uS": G.int()}, "torch.int32"),
        ({"g_uS": G[:, :0]}, "not empty"),
        ({"inputs_V": X[:, :2]}, r"Fix: a real \[n, 3\]"),
        ({"inputs_V": X[:0]}, r"Fix: a real \[n, 3\]"),
        ({"inputs_V": X / 0.0}, "inputs_V has NaN or infinity"),
        ({"wire_ohm": -1.0}, "wire_ohm = -1.0 must be finite"),
        ({"wire_ohm": float("nan")}, "wire_ohm = nan"),
        ({"temperature_K": 0.0}, "temperature_K = 0.0 must be above 0"),
    ],
)
def test_what_is_no_tile_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(RangeError, match=words):
        crossbar_deck(**{"g_uS": G, "inputs_V": X, **change})  # type: ignore[arg-type]


def test_noise_refuses_wrong_columns_and_transistors() -> None:
    with pytest.raises(RangeError, match=r"columns \[4\] asked for, the tile has 0 to 3"):
        noise_deck(G, [0, 4])
    with pytest.raises(RangeError, match="columns none asked for"):
        noise_deck(G, [])
    with pytest.raises(RangeError, match="8/3 k T g_m"):
        noise_deck(G, [0], access=AccessMosfet(gate_V=2.0))


def test_access_devices_check_themselves() -> None:
    with pytest.raises(HardwareError, match=r"AccessResistor.ohm = 0.0: must be above 0"):
        AccessResistor(ohm=0.0)
    with pytest.raises(HardwareError, match=r"AccessMosfet.kp_uA_per_V2 = -1.0"):
        AccessMosfet(gate_V=1.0, kp_uA_per_V2=-1.0)
