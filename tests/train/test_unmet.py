"""What a recipe asks of the network, and fit cannot give, is refused and never dropped."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

import mho
from mho.errors import TrainingError
from mho.experiments.networks import training_hardware
from mho.nn import StochasticResidual
from mho.train import AchievableUpdates, TrainSettings, fit, load_recipe

HW = mho.load_hardware("generic")


class Blobs:
    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(2):
            yield torch.randn(8, 4, generator=generator), torch.randint(0, 2, (8,), generator=generator)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def converted(**options: object) -> nn.Module:
    return mho.convert(net(), HW, **options)  # type: ignore[arg-type]


def plain(**settings: object) -> TrainSettings:
    return TrainSettings(epochs=1, **settings)  # type: ignore[arg-type]


def test_recipe_hybrid_on_a_network_without_bounds_names_the_key_the_value_and_the_way_out() -> None:
    model = converted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(TrainingError, match=r"clip_sigma = 1\.5, but weight 0\.weight has no fixed bound.*"
                                            r"mho\.convert\(model, hardware, clip_sigma=1\.5\)"):  # fmt: skip
        fit(model, Blobs(), recipe="hybrid", epochs=1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert fit(converted(clip_sigma=1.5), Blobs(), recipe="hybrid", epochs=1).steps == 2


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        (converted(clip_sigma=2.0), plain(clip_sigma=1.5), r"0\.weight was bounded at 2.*a recipe with clip_sigma = 2"),
        (net(), plain(clip_sigma=1.5), r"the network has none.*for_digital"),
        (converted(), plain(ranges="learned"), r'ranges = "learned", but those of weight 0\.weight follow'),
        (net(), plain(ranges="learned"), r"no analog layer.*ranges=\"learned\""),
        (converted(), plain(weight_decay_bounded=0.0), r"weight_decay_bounded = 0, but no weight has a fixed bound"),
        (converted(), plain(chip_gain=0.02), r"chip_gain = 0\.02.*0\.weight.*'generic'.*gain_d2d = 0"),
        (converted(), plain(chip_offset_lsb=0.5), r"chip_offset_lsb = 0\.5.*offset_d2d_lsb = 0.*leave both at 0"),
        (net(), plain(chip_gain=0.02), r"chip_gain = 0\.02.*no analog layer"),
        (converted(), plain(warm_start="digital", epochs_hardware=3), r"epochs_hardware = 3.*for_hardware\(\)"),
    ],
)  # fmt: skip
def test_a_setting_that_the_network_does_not_meet_is_refused(
    model: nn.Module, settings: TrainSettings, words: str
) -> None:
    with pytest.raises(TrainingError, match=words):
        fit(model, Blobs(), recipe=settings)


def test_what_the_network_has_is_not_refused() -> None:
    settings = plain(clip_sigma=1.5, ranges="learned", weight_decay_bounded=0.0, chip_gain=0.02, chip_offset_lsb=0.5)
    noisy = HW.replace(adc=replace(HW.adc, gain_d2d=0.03, offset_d2d_lsb=0.1))
    for hw in (training_hardware(HW, settings), training_hardware(noisy, settings)):
        model = mho.convert(net(), hw, clip_sigma=1.5, ranges="learned")
        assert fit(model, Blobs(), recipe=settings).steps == 2
    # More than the recipe asks for is the network's own affair.
    assert fit(converted(clip_sigma=2.0, ranges="learned"), Blobs(), recipe=plain()).steps == 2
    warm = TrainSettings(epochs=9, warm_start="digital", epochs_hardware=1, lr_hardware=0.01)
    assert fit(converted(), Blobs(), recipe=warm.for_hardware()).steps == 2


def test_the_bounds_of_a_stochastic_layer_are_bounds() -> None:
    model = nn.Sequential(StochasticResidual(nn.Linear(4, 2), HW, clip_sigma=1.5))
    assert fit(model, Blobs(), recipe=plain(clip_sigma=1.5, weight_decay_bounded=0.0)).steps == 2


def test_the_baselines_are_hybrid_without_its_own_elements() -> None:
    baseline = load_recipe("hybrid").train.for_digital()
    assert load_recipe("digital").train == load_recipe("noise-injection").train == baseline
    assert baseline.clip_sigma is None and baseline.epochs == load_recipe("hybrid").train.epochs
    assert fit(net(), Blobs(), recipe="digital", epochs=1).steps == 2
    assert fit(converted(), Blobs(), recipe="noise-injection", epochs=1).steps == 2


def test_averaged_weights_are_refused_where_pulses_write_them() -> None:
    device = mho.hardware.PulsedDevice(w_min=-1.0, w_max=1.0, dw_min=0.01)
    for ema_decay in (0.9, None):
        model = net()
        optimizer = AchievableUpdates(torch.optim.SGD(model.parameters(), lr=0.01), device)
        if ema_decay is None:
            assert fit(model, Blobs(), recipe=plain(ema_decay=None), optimizer=optimizer).steps == 2
            continue
        with pytest.raises(TrainingError, match=r"ema_decay = 0\.9.*no pulse.*Way out: ema_decay=None"):
            fit(model, Blobs(), recipe=plain(ema_decay=ema_decay), optimizer=optimizer)
        assert optimizer.report().steps == 0
