"""Counts of the energy model against loops that walk over every vector, tile, column and phase, and against torch."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import mho
from mho.costs.counts import FLOAT_BITS, count, layout
from mho.costs.phases import groups_of_planes, planes
from mho.costs.trace import trace
from mho.crossbar.ops import ConvOp, LinearOp
from mho.hardware import Adc, AdcCost, Cost, Dac, DriveCost, GenericCell, Hardware, Mapping, Tile
from mho.nn.site import analog_layers

PLAIN = Hardware(name="plain", mapping=Mapping(scheme="signed"), dac=Dac(bits=6), adc=Adc(bits=6))


def hardware(
    *,
    rows=None,
    cols=None,
    slices=1,
    scheme="differential",
    dac_bits=6,
    per_phase=None,
    polar=True,
    sign_reads=1,
    group=1,
):
    return Hardware(
        name="test",
        cell=GenericCell(bits=2 if slices > 1 else None),
        mapping=Mapping(scheme=scheme, slices=slices, bits_per_slice=2 if slices > 1 else None),
        tile=Tile(rows=rows, cols=cols),
        dac=Dac(bits=dac_bits),
        adc=Adc(bits=7),
        cost=Cost(
            node_nm=45,
            supply_V=0.9,
            drive=DriveCost(bits_per_phase=per_phase, polar=polar, sign_reads=sign_reads),
            adc=AdcCost(planes_per_conversion=group),
        ),
    )


def walk(op, hw, vectors, bias):
    """Everything that happens, one event at a time."""
    done: Counter = Counter()
    tiles = set()
    groups = op.groups if isinstance(op, ConvOp) else 1
    out = op.out_channels if isinstance(op, ConvOp) else op.out_features
    kernel = math.prod(op.kernel) if isinstance(op, ConvOp) else 1
    bits = hw.dac.bits
    magnitude = bits - 1 if hw.cost.drive.polar else bits
    per_phase = hw.cost.drive.bits_per_phase
    phases = []
    while magnitude > 0:
        phases.append(min(per_phase or magnitude, magnitude))
        magnitude -= phases[-1]
    conversion_groups = groups_of_planes(hw)
    assert sum(conversion_groups) == len(phases) == planes(hw)
    reads = hw.cost.drive.sign_reads
    offset = hw.mapping.scheme == "offset"
    for _ in range(vectors):
        words = Counter()
        for g in range(groups):
            places = [(o, s) for o in range(out // groups) for s in range(hw.mapping.slices)]
            width = hw.tile.cols or len(places)
            references = 0
            for block, rows_of in enumerate(op.blocks(hw.tile.rows)):
                rows = [(c, k) for c in range(rows_of.start, rows_of.stop) for k in range(kernel)]
                for start in range(0, len(places), width):
                    here = places[start : start + width]
                    tile = (g, block, start)
                    tiles.add(tile)
                    done["macs"] += sum(len(rows) for _, s in here if s == 0)
                    done["bits_link"] += len(rows) * bits
                    columns = [*here, *(["reference"] if offset else [])]
                    for _ in range(reads):
                        done["tile_reads"] += len(phases)
                        done["line_charges"] += len(columns) * len(phases)
                        done["samples"] += len(columns) * len(phases)
                        for planes_here in conversion_groups:
                            for column in columns:
                                done["conversions"] += 1
                                done["integrations"] += sum(2**k for k in range(planes_here))
                                if column == "reference":
                                    references += 1
                                else:
                                    words[g, column[0]] += 1
                    # Input signs are read one by one in half of the reads: a row is driven in the other half.
                    done["drives"] += len(rows) * len(phases) * max(1, reads // 2)
                done["bits_link"] += out // groups * bits
            done["additions"] += references - _reference_words(hw, op, groups, g)
        for o in range(out):
            done["additions"] += words[o // (out // groups), o % (out // groups)] - 1 + bias + offset
            done["bits_out"] += bits
            done["outputs"] += 1
    return done, len(tiles)


def _reference_words(hw, op, groups, g):
    """Each column of tiles keeps one sum of its references."""
    if hw.mapping.scheme != "offset":
        return 0
    out = op.out_channels if isinstance(op, ConvOp) else op.out_features
    columns = out // groups * hw.mapping.slices
    return 1 if hw.tile.cols is None else len(range(0, columns, hw.tile.cols))


OPS = [
    LinearOp(10, 7),
    LinearOp(3, 1),
    ConvOp(6, 8, (3, 3), (2, 1), (1, 1), (1, 1), 1),
    ConvOp(6, 8, (3, 2), (1, 1), (0, 0), (2, 1), 2),
    ConvOp(4, 4, (3,), (1,), (1,), (1,), 4),
    ConvOp(2, 6, (1, 2, 2), (1, 1, 1), (0, 0, 0), (1, 1, 1), 2),
]
SETTINGS = [
    {},
    {"rows": 9, "cols": 3},
    {"rows": 9, "cols": 5, "slices": 3},
    {"rows": 9, "cols": 4, "slices": 2, "scheme": "offset"},
    {"per_phase": 1, "dac_bits": 8, "group": 4, "rows": 12},
    {"per_phase": 2, "dac_bits": 8, "polar": False, "scheme": "offset"},
    {"sign_reads": 4, "rows": 9, "scheme": "signed"},
    {"sign_reads": 2, "cols": 2},
]


@pytest.mark.parametrize("op", OPS, ids=lambda op: f"{type(op).__name__}-{op.rows}")
@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_counts_are_those_of_a_walk_over_every_event(op, options, bias):
    hw = hardware(**options)
    found = count(op, hw, 3, numbers_in=50, bias=bias)
    assert (found.numbers_in, found.bits_in) == (50, 50 * hw.dac.bits)
    expected, tiles = walk(op, hw, 3, bias)
    for name, value in expected.items():
        assert getattr(found, name) == value, name
    assert (found.vectors, found.calls) == (3, 1)
    place = layout(op, hw)
    assert place.tiles == tiles
    weights = op.rows * place.outputs
    cells = weights * (2 if hw.mapping.scheme == "differential" else 1) * hw.mapping.slices
    assert place.cells - cells == op.rows * place.references * place.groups
    assert 0 < place.utilisation <= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 17), st.integers(1, 17), st.integers(1, 3))
def test_a_tile_is_never_more_than_full_and_counts_are_sums_of_vectors(rows, out, tile_rows, tile_cols, vectors):
    hw = hardware(rows=tile_rows, cols=tile_cols)
    op = LinearOp(rows, out)
    place = layout(op, hw)
    assert place.tiles == -(-rows // tile_rows) * -(-out // tile_cols)
    assert place.utilisation == pytest.approx(rows * out / (place.tiles * tile_rows * tile_cols))
    one, many = (count(op, hw, n, numbers_in=n * rows, bias=True) for n in (1, vectors))
    total = one
    for _ in range(vectors - 1):
        total = total + one
    assert replace(many, calls=vectors) == total


def test_widths_without_converters_are_those_of_a_float():
    hw = Hardware(name="ideal-ish", mapping=Mapping(scheme="signed"))
    found = count(LinearOp(5, 3), hw, 2, numbers_in=10, bias=False)
    assert found.bits_in == 2 * 5 * FLOAT_BITS and found.bits_out == 2 * 3 * FLOAT_BITS


def macs_of(model, *inputs):
    found = trace(model, inputs, lambda hw: hw, 1)
    return sum(t.counts.macs for t in found.sites.values()), found


def torch_macs(digital, *inputs):
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        digital(*inputs)
    return counter.get_total_flops() // 2


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, stride=2, padding=2, dilation=2, groups=4)
        self.c = nn.Conv2d(8, 8, 3, groups=8, padding=1, padding_mode="circular")
        self.d = nn.Linear(8, 5)

    def forward(self, x):
        return self.d(self.c(torch.relu(self.b(self.a(x)))).mean((2, 3)))


def test_macs_of_convolutions_are_torchs_and_each_number_is_read_once():
    torch.manual_seed(0)
    net, x = Convolutions(), torch.randn(2, 3, 9, 8)
    macs, found = macs_of(mho.convert(net, PLAIN), x)
    assert macs == torch_macs(net, x) and found.digital_macs == 0
    moved = {name: (t.counts.bits_in // 6, t.counts.bits_out // 6) for name, t in found.sites.items()}
    before, middle = 2 * 8 * 9 * 8, 2 * 8 * 5 * 4
    padded = 2 * 8 * 7 * 6  # the padding of a circular convolution is made before its tiles
    assert moved == {
        "a.weight": (2 * 3 * 9 * 8, before), "b.weight": (before, middle), "c.weight": (padded, middle),
        "d.weight": (2 * 8, 2 * 5),
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_macs_of_recurrent_layers_and_their_calls(kind, gates):
    torch.manual_seed(0)
    net = kind(5, 6, num_layers=2, bidirectional=True)
    steps, batch = 7, 3
    macs, found = macs_of(mho.convert(net, PLAIN), torch.randn(steps, batch, 5))
    per_step = 2 * (gates * 6 * (5 + 6)) + 2 * (gates * 6 * (12 + 6))
    assert macs == steps * batch * per_step
    assert found.sites["weight_hh_l0"].counts.calls == steps and found.sites["weight_ih_l0"].counts.calls == 1
    cells = nn.LSTMCell(5, 6)
    analog = mho.convert(cells, PLAIN)
    assert macs_of(analog, torch.randn(3, 5))[0] == torch_macs(cells, torch.randn(3, 5)) == 3 * 24 * 11


def test_macs_of_attention_and_its_digital_part():
    torch.manual_seed(0)
    length, batch, size = 6, 2, 8
    net = nn.MultiheadAttention(size, 2, batch_first=True)
    x = torch.randn(batch, length, size)
    analog = mho.convert(net, PLAIN)
    found = trace(analog, (x, x, x), lambda hw: hw, batch)
    macs = sum(t.counts.macs for t in found.sites.values())
    assert macs == batch * length * (3 * size * size + size * size)
    # Scores and weighted sums are products of data with data.
    assert found.digital_macs == 2 * batch * length * length * size


def agree(found, expected):
    """What was traced of every weight is what a walk over its events found; ``expected``: by name."""
    assert set(found.sites) == set(expected)
    for name, events in expected.items():
        counts = found.sites[name].counts
        for what in ("macs", "drives", "conversions", "samples", "line_charges", "additions", "bits_link", "bits_out"):
            assert getattr(counts, what) == events[what], (name, what)
        assert counts.bits_in == events["bits_in"], name


SEQUENCES = [{}, {"rows": 5, "cols": 3, "per_phase": 1, "scheme": "offset"}, {"rows": 4, "slices": 2, "sign_reads": 2}]


@pytest.mark.parametrize("options", SEQUENCES, ids=str)
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_conversions_and_bits_of_recurrent_layers_are_those_of_a_walk_over_time(kind, gates, options):
    torch.manual_seed(0)
    hw, steps, batch, size = hardware(**options), 4, 2, 3
    net = kind(5, size, num_layers=2, bidirectional=True)
    found = trace(mho.convert(net, hw), (torch.randn(steps, batch, 5),), lambda h: h, batch)
    expected = {}
    for layer, width in ((0, 5), (1, 2 * size)):
        for suffix in ("", "_reverse"):
            for name, inputs in ((f"weight_ih_l{layer}{suffix}", width), (f"weight_hh_l{layer}{suffix}", size)):
                expected[name] = Counter()
                for _ in range(steps * batch):
                    expected[name] += walk(LinearOp(inputs, gates * size), hw, 1, True)[0]
                    expected[name]["bits_in"] += inputs * hw.dac.bits
    agree(found, expected)


@pytest.mark.parametrize("options", SEQUENCES, ids=str)
def test_conversions_and_bits_of_attention_are_those_of_a_walk_over_its_tokens(options):
    torch.manual_seed(0)
    hw, length, batch, size = hardware(**options), 3, 2, 8
    net = nn.MultiheadAttention(size, 2, batch_first=True)
    x = torch.randn(batch, length, size)
    found = trace(mho.convert(net, hw), (x, x, x), lambda h: h, batch)
    expected = {}
    for name, outputs in (("in_proj_weight", 3 * size), ("out_proj.weight", size)):
        expected[name] = Counter()
        for _ in range(batch * length):
            expected[name] += walk(LinearOp(size, outputs), hw, 1, True)[0]
            expected[name]["bits_in"] += size * hw.dac.bits
    agree(found, expected)


@pytest.mark.parametrize(
    ("net", "macs"),
    [
        (nn.LSTM(4, 3), 7 * 2 * 12 * 7),
        (nn.GRU(4, 3), 7 * 2 * 9 * 7),
        (nn.TransformerEncoderLayer(4, 2, 8), 7 * 2 * (4 * 4 * 4 + 2 * 4 * 8) + 2 * 2 * 7 * 7 * 4),
    ],
    ids=lambda v: type(v).__name__,
)
def test_torchs_fused_kernels_of_digital_layers_are_counted_too(net, macs):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.rest = nn.Linear(4, 4), net

        def forward(self, x):
            return self.rest(self.first(x))

    fast, mkldnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    found = trace(mho.convert(Both(), PLAIN, digital=["rest"]), (torch.randn(7, 2, 4),), lambda hw: hw, 1)
    assert found.digital_macs == macs
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled) == (fast, mkldnn)


def test_layers_kept_digital_are_counted_beside():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    found = trace(mho.convert(net, PLAIN, digital=["2"]), (torch.randn(3, 6),), lambda hw: hw, 3)
    assert list(found.sites) == ["0.weight"] and found.digital_macs == 3 * 5 * 4


def test_tied_weights_are_one_array_that_is_read_twice():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(torch.relu(self.a(x)))

    found = trace(mho.convert(Tied(), PLAIN), (torch.randn(2, 4),), lambda hw: hw, 2)
    assert list(found.sites) == ["a.weight"]
    assert found.sites["a.weight"].counts.calls == 2 and found.sites["a.weight"].counts.macs == 2 * 2 * 16


def test_tracing_leaves_the_network_as_it_was():
    model = mho.convert(nn.Sequential(nn.Linear(4, 3), nn.Dropout()), PLAIN).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    substrate = next(analog_layers(model))[1].substrate
    trace(model, (torch.randn(2, 4),), lambda hw: hw, 2)
    assert model.training and next(analog_layers(model))[1].substrate is substrate
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert len(model._forward_pre_hooks) == 2
