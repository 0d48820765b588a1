"""Settings of a recipe that shape the network, not the loop: ``fit`` cannot give them, so they must be there."""

import torch
from torch import nn

from mho.errors import TrainingError
from mho.nn.site import Site, analog_layers, bounded_parameters
from mho.train.achievable import AchievableUpdates
from mho.train.settings import TrainSettings

_ROUNDING = 1e-9


def refuse_unmet(model: nn.Module, settings: TrainSettings, optimizer: torch.optim.Optimizer | None) -> None:
    """Raise :class:`TrainingError` where ``settings`` ask for something that ``model`` has not and ``fit`` cannot make.

    ``clip_sigma`` and ``ranges = "learned"`` are made by ``mho.convert``; ``chip_gain`` and ``chip_offset_lsb`` are of
    the hardware it was given; ``epochs_hardware`` and ``lr_hardware`` belong to a second run; ``weight_decay_bounded``
    needs weights with a bound. ``ema_decay`` and :class:`AchievableUpdates` exclude one another.
    """
    sites = [site for _, layer in analog_layers(model) for site in layer.sites.values()]
    bounded = any(True for _ in bounded_parameters(model))
    if settings.clip_sigma is not None:
        _bounds(sites, bounded, settings.clip_sigma)
    if settings.ranges == "learned":
        _ranges(sites)
    if settings.chip_gain > 0 or settings.chip_offset_lsb > 0:
        _converter_errors(sites, settings)
    if settings.weight_decay_bounded is not None and not bounded:
        raise TrainingError(
            f"fit: weight_decay_bounded = {settings.weight_decay_bounded:g}, but no weight has a fixed bound. "
            "Way out: mho.convert(model, hardware, clip_sigma=...) first, or leave it out."
        )
    if settings.epochs_hardware is not None or settings.lr_hardware is not None:
        raise TrainingError(
            f"fit: epochs_hardware = {settings.epochs_hardware}, lr_hardware = {settings.lr_hardware} belong to the "
            "second part of a warm start, and fit is one part. Way out: recipe.train.for_pretraining() for the digital "
            "start, recipe.train.for_hardware() for the network that continues from it; mho run does both."
        )
    if settings.ema_decay is not None and isinstance(optimizer, AchievableUpdates):
        raise TrainingError(
            f"fit: ema_decay = {settings.ema_decay:g} ends on averaged weights, which no pulse of AchievableUpdates "
            'has written. Way out: ema_decay=None (recipe.train.model_copy(update={"ema_decay": None})).'
        )


def _bounds(sites: list[Site], bounded: bool, wanted: float) -> None:
    if not sites and bounded:
        return  # stochastic layers hold bounds of their own
    way_out = f"mho.convert(model, hardware, clip_sigma={wanted:g}) first"
    if not sites:
        raise TrainingError(
            f"fit: clip_sigma = {wanted:g} bounds weights on analog hardware, and the network has none. "
            f'Way out: {way_out}; or recipe="digital", recipe.train.for_digital().'
        )
    for site in sites:
        if site.clip_sigma != wanted:
            has = "has no fixed bound" if site.clip_sigma is None else f"was bounded at {site.clip_sigma:g}"
            raise TrainingError(
                f"fit: clip_sigma = {wanted:g}, but weight {site.name} {has}, and a bound is set by conversion. "
                f"Way out: {way_out}; or a recipe with clip_sigma = {_shown(site.clip_sigma)}."
            )


def _shown(value: float | None) -> str:
    return "None" if value is None else f"{value:g}"


def _ranges(sites: list[Site]) -> None:
    other = next((site.name for site in sites if not site.learned_ranges), None)
    if other is None and sites:
        return
    cause = "the network has no analog layer" if other is None else f"those of weight {other} follow an observation"
    raise TrainingError(
        f'fit: ranges = "learned", but {cause}. Way out: mho.convert(model, hardware, ranges="learned") first, or '
        'ranges = "calibrated".'
    )


def _converter_errors(sites: list[Site], settings: TrainSettings) -> None:
    wanted = f"chip_gain = {settings.chip_gain:g}, chip_offset_lsb = {settings.chip_offset_lsb:g}"
    way_out = (
        "Way out: convert with hw.replace(adc=replace(hw.adc, gain_d2d=..., offset_d2d_lsb=...)), as mho run does, or "
        "leave both at 0"
    )
    if not sites:
        raise TrainingError(f"fit: {wanted} are errors of ADCs, and the network has no analog layer. {way_out}.")
    for site in sites:
        adc = site.hw.adc
        gain, offset = (0.0, 0.0) if adc is None else (adc.gain_d2d, adc.offset_d2d_lsb)
        rounded = 1 - _ROUNDING
        if gain < settings.chip_gain * rounded or offset < settings.chip_offset_lsb * rounded:
            raise TrainingError(
                f"fit: {wanted}, but the hardware of weight {site.name} ({site.hw.name!r}) has gain_d2d = {gain:g}, "
                f"offset_d2d_lsb = {offset:g}, and fit does not change hardware. {way_out}."
            )
