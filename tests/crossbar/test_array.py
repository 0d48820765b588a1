"""Programming an array: full scale, faults, wires, age, tiles; what is random and what is not."""

import pytest
import torch
from torch import Tensor

from mho.crossbar.array import (
    full_scale,
    is_ideal,
    mean_abs_conductance_uS,
    program,
    simple_sigma,
    to_conductances,
)
from mho.crossbar.noise import Counter, Draw, StaticDraws, as_tensor, cells_per_weight, draw_static
from mho.crossbar.ops import ConvOp, LinearOp
from mho.hardware import (
    Environment,
    Faults,
    GenericCell,
    Hardware,
    Mapping,
    Readout,
    Tile,
    Wires,
    load_hardware,
    preset_names,
)
from mho.physics import wires
from mho.rng import normals

OP = LinearOp(12, 6)
DIFFERENTIAL = Hardware(name="d", cell=GenericCell(g_min_uS=1.0))


def _draws(hw: Hardware, w: Tensor, op: LinearOp | ConvOp = OP) -> StaticDraws | None:
    return draw_static(op, hw, w.shape, lambda shape, label: normals(shape, 7, label))


@pytest.fixture
def w() -> Tensor:
    return torch.randn(6, 12, generator=torch.Generator().manual_seed(0))


def test_full_scale(w: Tensor) -> None:
    assert torch.equal(full_scale(w, DIFFERENTIAL, None), w.abs().max())
    columns = full_scale(w, DIFFERENTIAL.replace(mapping=Mapping(per_column=True)), None)
    assert torch.equal(columns, w.abs().amax(1, keepdim=True))
    assert float(full_scale(torch.zeros(2, 3), DIFFERENTIAL, None)) == 1.0
    assert float(full_scale(torch.zeros(0, 3), DIFFERENTIAL, None)) == 1.0
    assert not full_scale(w.requires_grad_(), DIFFERENTIAL, None).requires_grad


@pytest.mark.parametrize("name", ["reram-isaac", "pcm-hermes", "reram-cmo", "sram-charge"])
def test_low_precision_weights_are_programmed_in_float32_and_rounded_once(w: Tensor, name: str) -> None:
    hw = load_hardware(name)
    for dtype in (torch.bfloat16, torch.float16):
        low = w.to(dtype)
        array, exact = (program(v, OP, hw, _draws(hw, w), t_s=60.0) for v in (low, low.float()))
        assert len(array.weights) == hw.mapping.slices
        for weight, wanted in zip(array.weights, exact.weights, strict=True):
            assert weight.dtype == dtype
            assert torch.equal(weight, wanted.to(dtype))
        program(low.requires_grad_(), OP, hw, _draws(hw, w)).weights[0].sum().backward()
        assert low.grad is not None and low.grad.dtype == dtype and bool(low.grad.any())


def test_conductances_stay_in_their_range_and_share_g_min(w: Tensor) -> None:
    g = to_conductances(w / w.abs().max(), DIFFERENTIAL)
    assert g.shape == (2, 6, 12)
    assert torch.allclose(g.amin(0), torch.ones(6, 12))  # the unused polarity rests at g_min
    assert float(g.max()) == pytest.approx(25.0)
    assert mean_abs_conductance_uS(w, DIFFERENTIAL) == pytest.approx(float(g.mean()))


def test_only_the_preset_ideal_is_ideal() -> None:
    assert [name for name in preset_names() if is_ideal(load_hardware(name))] == ["ideal"]
    ideal = load_hardware("ideal")
    assert is_ideal(ideal.replace(name="own", environment=Environment(temperature_K=400.0, t_s=1e6)))
    for change in (
        {"cell": GenericCell(drift_nu=0.1)}, {"mapping": Mapping()}, {"tile": Tile(rows=4)},
        {"readout": Readout(thermal=True)}, {"faults": Faults(dead_rows=0.1)}, {"wires": Wires(wire_ohm=1.0)},
    ):  # fmt: skip
        assert not is_ideal(ideal.replace(**change))


def test_programming_depends_on_the_draws_alone(w: Tensor) -> None:
    hw = DIFFERENTIAL.replace(cell=GenericCell(programming_noise=0.1))
    a, b = (program(w, OP, hw, _draws(hw, w)).weights[0] for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, program(w, OP, hw, None).weights[0])
    counter = draw_static(OP, hw, w.shape, lambda shape, label: Counter(3))
    tensor = draw_static(OP, hw, w.shape, lambda shape, label: as_tensor(Counter(3), shape))
    assert torch.equal(program(w, OP, hw, counter).weights[0], program(w, OP, hw, tensor).weights[0])


def test_short_and_long_way_of_simple_noise_agree(w: Tensor) -> None:
    hw = Hardware(name="s", mapping=Mapping(scheme="signed"), cell=GenericCell(programming_noise=0.1))
    assert simple_sigma(hw) == 0.1
    draws = _draws(hw, w)
    long_way = hw.replace(wires=Wires(wire_ohm=0.0))
    assert simple_sigma(long_way) is None
    for bound in (None, torch.tensor(0.7)):
        a, b = (program(w, OP, h, draws, bound=bound).weights[0] for h in (hw, long_way))
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("scheme", ["differential", "offset", "signed"])
def test_dead_lines(w: Tensor, scheme: str) -> None:
    hw = Hardware(name="dead", mapping=Mapping(scheme=scheme), faults=Faults(dead_rows=0.3, dead_cols=0.3))  # type: ignore[arg-type]
    draws = _draws(hw, w)
    assert draws is not None
    assert draws.dead_rows is not None
    assert draws.dead_cols is not None
    got = program(w, OP, hw, draws).weights[0]
    rows, cols = draws.dead_rows < 0.3, draws.dead_cols < 0.3
    assert rows.any()
    assert cols.any()
    alive = ~(cols.unsqueeze(1) | rows.unsqueeze(0))
    assert torch.allclose(got[alive], w[alive], atol=1e-5)
    # A line that carries no current adds nothing; a cell beside a reference then reads the reference alone.
    assert torch.allclose(
        got[~alive], torch.full_like(got[~alive], -float(w.abs().max()) if scheme == "offset" else 0.0), atol=1e-5
    )


def test_stuck_cells(w: Tensor) -> None:
    hw = DIFFERENTIAL.replace(faults=Faults(stuck_on=1.0))
    assert torch.allclose(program(w, OP, hw, _draws(hw, w)).weights[0], torch.zeros(6, 12), atol=1e-6)
    hw = DIFFERENTIAL.replace(mapping=Mapping(scheme="offset"), faults=Faults(stuck_off=1.0))
    top = float(w.abs().max())
    assert torch.allclose(program(w, OP, hw, _draws(hw, w)).weights[0], torch.full((6, 12), -top), atol=1e-5)


@pytest.mark.parametrize("model", ["exact", "first_order"])
def test_each_tile_goes_behind_its_own_wires(w: Tensor, model: str) -> None:
    hw = DIFFERENTIAL.replace(wires=Wires(wire_ohm=20.0, model=model), tile=Tile(rows=4, cols=3))  # type: ignore[arg-type]
    got = program(w, OP, hw, None).weights[0]
    solve = wires.effective_conductance if model == "exact" else wires.first_order
    g = to_conductances(w / w.abs().max(), hw)
    for row in range(0, 12, 4):
        for col in range(0, 6, 3):
            tile = g[:, col : col + 3, row : row + 4].transpose(1, 2)
            effective = solve(tile, 20.0).transpose(1, 2)
            want = (effective[0] - effective[1]) * (w.abs().max() / 24.0)
            assert torch.allclose(got[col : col + 3, row : row + 4], want, atol=1e-5)
    assert not torch.allclose(got, w, atol=1e-4)


def test_groups_have_tiles_of_their_own() -> None:
    op = ConvOp(4, 6, (3,), (1,), (0,), (1,), 2)
    w = torch.randn(6, 2, 3)
    hw = DIFFERENTIAL.replace(wires=Wires(wire_ohm=20.0))
    whole = program(w, op, hw, None).weights[0]
    alone = ConvOp(2, 3, (3,), (1,), (0,), (1,), 1)
    bound = w.abs().max()
    pieces = [program(part, alone, hw, None, bound=bound).weights[0] for part in w.split(3)]
    assert torch.allclose(whole, torch.cat(pieces), atol=1e-6)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_programs_with_and_without_draws(name: str, w: Tensor) -> None:
    hw = load_hardware(name)
    leaf = w.clone().requires_grad_()
    array = program(leaf, OP, hw, _draws(hw, w), t_s=86_400.0)
    total = sum(a.sum() for a in array.weights)
    assert all(a.isfinite().all() for a in array.weights)
    (grad,) = torch.autograd.grad(total, leaf)
    assert grad.isfinite().all()
    quiet = program(w, OP, hw, None)
    assert float((quiet.weights[0] - w).abs().max()) < 1.1 * float(w.abs().max())


def test_bound_saturates_and_lets_gradients_through(w: Tensor) -> None:
    for hw in (DIFFERENTIAL, Hardware(name="s", mapping=Mapping(scheme="signed"))):
        leaf = w.clone().requires_grad_()
        array = program(leaf, OP, hw, None, bound=torch.tensor(0.5))
        assert torch.allclose(array.weights[0], w.clamp(-0.5, 0.5), atol=1e-6)
        array.weights[0].sum().backward()
        assert torch.allclose(leaf.grad, torch.ones_like(w))


def test_input_is_never_written_to(w: Tensor) -> None:
    for name in preset_names():
        hw, kept = load_hardware(name), w.clone()
        program(w, OP, hw, _draws(hw, w), t_s=10.0, bound=torch.tensor(0.5))
        assert torch.equal(w, kept)


def test_draws_are_only_made_for_what_is_random(w: Tensor) -> None:
    asked: list[str] = []

    def source(shape: tuple[int, ...], label: str) -> Draw:
        asked.append(label)
        return normals(shape, label)

    assert draw_static(OP, DIFFERENTIAL, w.shape, source) is None
    assert asked == []
    hw = DIFFERENTIAL.replace(cell=GenericCell(programming_noise=0.1), faults=Faults(dead_cols=0.1))
    draws = draw_static(OP, hw, w.shape, source)
    assert sorted(asked) == ["dead_cols", "programming"]
    assert draws is not None
    assert draws.programming is not None
    assert draws.programming.shape == (cells_per_weight(hw), 6, 12)


def test_bounds_of_channels_on_hardware_with_one_range_a_layer_share_the_largest() -> None:
    w, bounds = torch.tensor([[1.0, -0.5], [0.25, 0.1]]), torch.tensor([1.0, 0.25])
    channel = Hardware(name="c", mapping=Mapping(scheme="signed", per_column=True))
    layer = Hardware(name="l", mapping=Mapping(scheme="signed"))
    assert torch.equal(full_scale(w, channel, bounds), torch.tensor([[1.0], [0.25]]))
    assert torch.equal(full_scale(w, layer, bounds), torch.tensor(1.0))
    assert torch.equal(full_scale(w, channel, torch.tensor(2.0)), torch.tensor(2.0))
