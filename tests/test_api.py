"""The public names, and what importing them costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import mho

HEAVY = ("pydantic", "scipy", "xarray", "matplotlib", "pooch", "rich", "typer", "PIL")


def test_every_public_name_exists_and_is_documented() -> None:
    assert {
        "load_hardware",
        "inspect",
        "convert",
        "to_digital",
        "calibrate",
        "fabricate",
        "evaluate",
        "fit",
        "report",
    } <= set(mho.__all__)
    for name in mho.__all__:
        value = getattr(mho, name)
        assert value is not None
        assert name in dir(mho)
        if name != "__version__":
            assert value.__doc__


def test_a_misspelt_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'covert'; it has .*convert"):
        mho.covert  # noqa: B018


def test_importing_mho_and_its_operator_loads_nothing_heavy() -> None:
    code = f"import sys, mho, mho.hardware, mho.crossbar.fused; print([m for m in {HEAVY!r} if m in sys.modules])"
    source = str(Path(mho.__file__).parents[1])
    found = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert found.stderr == ""
    assert found.stdout.strip() == "[]"


def test_import_mho_loads_no_room_and_each_room_is_loaded_by_its_name_alone() -> None:
    code = """
import sys, mho
loaded = [m for m in sys.modules if m == "torch" or m.startswith("mho.")]
for room in sorted(mho._ROOMS):  # the lazy path itself: an earlier room may have imported this one
    assert mho.__getattr__(room) is getattr(mho, room) is sys.modules["mho." + room], room
names = mho.nn.project_, mho.moments.forecast, mho.train.AchievableUpdates, mho.objectives.BetaNLL
names += mho.hardware.PulsedDevice, mho.testing.check_device, mho.errors.MhoError
print(loaded, len(names))
"""
    source = str(Path(mho.__file__).parents[1])
    found = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert found.stderr == ""
    assert found.stdout.strip() == "[] 7"


def test_example_of_the_design_page() -> None:
    import torch
    from torch import nn

    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    hw = mho.load_hardware("pcm-hermes")
    assert "on pcm-hermes" in str(mho.inspect(net, hw))
    analog = mho.convert(net, hw)
    optimizer = torch.optim.SGD(analog.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        analog.train()(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
    chips = mho.fabricate(analog, chips=3, seed=7)
    assert chips(torch.randn(4, 6)).shape == (3, 4, 3)
    assert chips.aged("1 day").compensated()(torch.randn(4, 6)).isfinite().all()
    assert type(mho.to_digital(analog)[0]) is nn.Linear
