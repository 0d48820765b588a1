"""Learning rate and noise as functions of the step."""

import math

import pytest
import torch

from mho.testing import assert_law
from mho.train.schedule import level_factor, lr_factor, noise_factor


def test_constant() -> None:
    assert [lr_factor(s, 5, "constant") for s in range(5)] == [1.0] * 5


def test_cosine_ends_and_middle() -> None:
    assert lr_factor(0, 101, "cosine") == pytest.approx(1.0)
    assert lr_factor(50, 101, "cosine") == pytest.approx(0.5)
    assert lr_factor(25, 101, "cosine") == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert lr_factor(100, 101, "cosine") == pytest.approx(0.0)


def test_onecycle_starts_low_peaks_once_ends_at_zero() -> None:
    values = [lr_factor(s, 1001, "onecycle") for s in range(1001)]
    assert values[0] == pytest.approx(1 / 25)
    assert values[300] == pytest.approx(1.0)
    assert values[-1] == pytest.approx(0.0)
    assert values[:301] == sorted(values[:301])
    assert values[300:] == sorted(values[300:], reverse=True)


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "constant"])
def test_one_step_and_one_too_many(schedule: str) -> None:
    assert lr_factor(0, 1, schedule) == 1.0
    assert lr_factor(20, 10, schedule) == lr_factor(9, 10, schedule)


def test_noise_ramp() -> None:
    assert noise_factor(0, 100, 0.0) == 1.0
    assert noise_factor(0, 100, 0.5) == 0.0
    assert noise_factor(25, 100, 0.5) == 0.5
    assert noise_factor(50, 100, 0.5) == 1.0
    assert noise_factor(99, 100, 0.5) == 1.0


def test_noise_levels_follow_their_laws() -> None:
    u = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert {level_factor(float(v), "fixed") for v in u[:100]} == {1.0}
    uniform = torch.tensor([level_factor(float(v), "uniform") for v in u])
    assert float(uniform.min()) >= 0 and float(uniform.max()) < 1.5
    assert float(uniform.mean()) == pytest.approx(0.75, abs=0.01)
    # |N(0, 1)| with a fair sign is N(0, 1).
    half = torch.tensor([level_factor(float(v), "half-normal") for v in u])
    sign = 2.0 * torch.randint(2, half.shape, generator=torch.Generator().manual_seed(1)) - 1
    assert_law(half * sign, sigma=1.0, mean=0.0)
