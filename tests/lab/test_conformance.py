"""The public conformance suite passes for virtual chips of every preset, and catches broken drivers."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from broken_drivers import BROKEN, Wrapped, chip

from mho.hardware import preset_names
from mho.testing import check_device
from mho.testing.device_bench import good_numbers
from mho.testing.devices import CHECKS


@pytest.mark.parametrize("preset", preset_names())
def test_virtual_chips_conform(preset: str) -> None:
    report = check_device(lambda: chip(preset))
    skipped = {name for name, _ in report.skipped}
    assert skipped == ({"full_scale"} if preset == "ideal" else set())
    assert len(report.passed) + len(skipped) == len(CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_a_sound_chip_is_not_accused_by_chance(seed: int) -> None:
    for preset in ("pcm-hermes", "reram-wan2022", "flash-sonos"):
        check_device(partial(chip, preset, seed), run=f"run {seed}")


def test_what_gives_no_occasion_is_named() -> None:
    report = check_device(lambda: chip("ideal", tiles=1, rows=1, cols=1))
    assert {"masked", "tiles"} <= {name for name, _ in report.skipped}
    assert all(reason for _, reason in report.skipped)


def test_the_wrapper_alone_is_sound() -> None:
    assert not check_device(Wrapped).skipped


@pytest.mark.parametrize(("driver", "message"), BROKEN, ids=lambda x: getattr(x, "__name__", ""))
def test_broken_drivers_are_caught(driver: Callable[[], Wrapped], message: str) -> None:
    with pytest.raises(AssertionError, match=message) as caught:
        check_device(driver)
    assert str(caught.value).startswith("mho virtual pcm-hermes")


def test_every_check_has_a_broken_driver() -> None:
    named = {message.split(":")[0] for _, message in BROKEN}
    assert {check.__name__ for check in CHECKS} <= named


def test_numbers_of_another_shape_or_with_a_gradient() -> None:
    good = torch.zeros(2, 3)
    with pytest.raises(AssertionError, match="no mask"):
        good_numbers(good, torch.ones(2, 3), (2, 3), "x")
    with pytest.raises(AssertionError, match="gradient"):
        good_numbers(good.requires_grad_(), torch.ones(2, 3, dtype=torch.bool), (2, 3), "x")
