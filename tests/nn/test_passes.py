"""Which forward pass a product belongs to, when activation checkpointing computes it again."""

import copy

import pytest
import torch
from small_networks import FULL, NOISY
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import mho
from mho.hardware import Hardware
from mho.nn import passes
from mho.nn.passes import Pass, Passes


class Blocks(nn.Module):
    """Two hidden layers that may be computed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(2))
        self.out = nn.Linear(6, 3)
        self.reentrant: bool | None = None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return self.out(x)


@pytest.mark.parametrize("hw", [NOISY, FULL, NOISY.replace(output_noise=0.0)], ids=["noisy", "full", "quiet outputs"])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_two_passes_before_the_backward_pass_keep_their_chips(hw: Hardware, reentrant: bool, together: bool) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(2, 5, 6) * torch.tensor([1.0, 4.0]).reshape(2, 1, 1)  # the ranges move between them
    plain, found = mho.convert(Blocks(), hw).train(), []
    for setting in (None, reentrant):
        network = copy.deepcopy(plain)
        network.reentrant = setting
        torch.manual_seed(1)
        losses = [network(x.clone().requires_grad_()).square().sum() for x in inputs]
        if together:
            torch.stack(losses).sum().backward()
        else:
            for loss in losses:
                loss.backward()
        found.append({name: p.grad for name, p in network.named_parameters()})
    assert all(torch.equal(grad, found[1][name]) for name, grad in found[0].items())


def repeated(state: Passes) -> Pass:
    """The pass that a product inside a backward pass is taken to be of."""
    asked = []
    x = torch.ones((), requires_grad=True)
    y = x * 1
    y.register_hook(lambda _: asked.append(state.of_product(True)))
    y.backward()
    return asked[0]


def test_the_generator_tells_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "REMEMBERED", 2)
    state, states, made = Passes(), [], []
    for seed in range(3):
        state.begin(seed)
        states.append(torch.get_rng_state())
        made.append(state.of_product(True))
        torch.rand(1)
    assert [p.chip_seed for p in made] == [0, 1, 2]
    torch.set_rng_state(states[1])
    assert repeated(state) is made[1]
    torch.set_rng_state(states[0])  # forgotten: two are remembered
    assert repeated(state) is state.last is made[2]


def test_a_copy_goes_on_with_the_last_pass_and_remembers_no_products() -> None:
    state = Passes()
    for seed in range(2):
        state.begin(seed)
        before = torch.get_rng_state()
        state.of_product(True)
        torch.rand(1)
    other = copy.deepcopy(state)
    assert other.last is not None and other.last.chip_seed == 1
    state.begin(2)
    other.begin(3)
    torch.set_rng_state(before)
    assert repeated(state).chip_seed == 1
    assert repeated(other).chip_seed == 3


def test_the_same_chip_again_is_the_same_pass() -> None:
    state = Passes()
    state.begin(5)
    first = state.last
    state.begin(5)
    assert state.last is first
    state.begin(6)
    assert state.last is not first
