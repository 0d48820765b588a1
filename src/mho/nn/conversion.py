"""Turn a digital network into its analog twin and back."""

import copy
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mho.errors import ConversionError, InputError
from mho.hardware import load_hardware
from mho.hardware.spec import Hardware
from mho.nn.attention import allow_nested_tensors, forbid_nested_tensors
from mho.nn.inspection import Inspection, Where, choose_hardware, inspect_modules, patterns, refuse_unmatched
from mho.nn.policy import Policy
from mho.nn.registry import analog_builder
from mho.nn.site import AnalogLayer, analog_layers
from mho.nn.stochastic import StochasticResidual
from mho.nn.surrogate import NewChip, Surrogate
from mho.nn.watch import FirstForward, move_hooks, remove_hooks


def inspect(
    model: nn.Module, hw: Hardware | str = "generic", *, where: Where = None, digital: Iterable[str] = ()
) -> Inspection:
    """List every module and bare parameter of ``model`` with its decision, reason and way out.

    Changes nothing; prints as a table. Arguments as for :func:`convert`.
    """
    description = load_hardware(hw) if isinstance(hw, str) else hw
    kept = patterns(digital)
    refuse_unmatched(model, (*patterns(where), *kept))
    return inspect_modules(model, choose_hardware(where, description, load_hardware), kept)


def convert(
    model: nn.Module,
    hw: Hardware | str,
    *,
    where: Where = None,
    digital: Iterable[str] = (),
    ranges: Literal["calibrated", "learned"] = "calibrated",
    clip_sigma: float | None = None,
    backward: Literal["ideal", "noisy"] = "ideal",
    noise_in_eval: bool = False,
) -> nn.Module:
    """A converted copy of ``model``; the original is not touched.

    ``hw``: a description or a preset's name. ``where``: which modules, or which hardware for which
    module (see :func:`mho.nn.inspection.choose_hardware`). ``digital``: name patterns of modules that stay
    digital although mho could not tell (bare matrices, refused layers). ``ranges``: converter ranges
    follow a running observation or are learned parameters. ``clip_sigma``: fix the full scale of each
    weight at that many of its present standard deviations; ``None``: max|w|. ``backward``: "noisy"
    reads the array in the other direction with noise and converters of its own.

    In train mode each forward pass meets a new chip; in eval mode nothing is random (converters,
    levels and bounds act) unless ``noise_in_eval``.

    Raises :class:`ConversionError` that lists every module or parameter that cannot be mapped.
    """
    _check_arguments(ranges, clip_sigma, backward)
    description = load_hardware(hw) if isinstance(hw, str) else hw
    inspection = inspect(model, description, where=where, digital=digital)
    if inspection.refused:
        lines = "\n".join(
            f"  {r.name or '(root)'} ({r.kind}): {r.reason}. Way out: {r.way_out}." for r in inspection.refused
        )
        raise ConversionError(f"{len(inspection.refused)} part(s) of the network cannot be mapped:\n{lines}")
    if not any(row.decision == "analog" for row in inspection.rows):
        raise ConversionError(
            f"{type(model).__name__}: no part of it would be on analog hardware. Way out: mho.inspect(model, hardware) "
            "says why; widen where=, or leave the network digital."
        )
    _check_weights(model)
    hardware_of = choose_hardware(where, description, load_hardware)
    substrate = Surrogate(noise_in_eval=noise_in_eval)
    analog_names = [r.name for r in inspection.rows if r.decision == "analog"]
    twin = copy.deepcopy(model)
    originals = dict(twin.named_modules(remove_duplicate=False))
    replaced: dict[int, AnalogLayer] = {}
    first_names = _first_names(twin)
    for name in analog_names:
        module = originals[name]
        if id(module) not in replaced:
            builder, chosen = analog_builder(module), hardware_of(name, module)
            assert builder is not None and chosen is not None
            policy = Policy(chosen, ranges, clip_sigma, backward)
            layer = builder(module, name, policy, substrate)
            _share_names(layer, first_names)
            move_hooks(module, layer)
            replaced[id(module)] = layer
        twin = _put(twin, name, replaced[id(module)])
    forbid_nested_tensors(twin)
    _install_hooks(twin, substrate, frozenset(_digital_parameters(model, inspection)))
    return twin


def _check_arguments(ranges: str, clip_sigma: float | None, backward: str) -> None:
    if ranges not in ("calibrated", "learned"):
        raise ConversionError(f"ranges = {ranges!r}: must be 'calibrated' or 'learned'.")
    if backward not in ("ideal", "noisy"):
        raise ConversionError(f"backward = {backward!r}: must be 'ideal' or 'noisy'.")
    if clip_sigma is not None and not 0 < clip_sigma < float("inf"):
        raise ConversionError(f"clip_sigma = {clip_sigma!r}: must be above 0 (2 to 3 is usual), or None for no bound.")


def _check_weights(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        known = parameter.device.type != "meta" and not nn.parameter.is_lazy(parameter)
        if known and not bool(torch.isfinite(parameter).all()):
            raise InputError(f"{name}: holds NaN or infinity and cannot be a conductance. Way out: repair the weights.")


def _first_names(model: nn.Module) -> dict[int, str]:
    """The first full name of each parameter: tied weights are one array, whatever module reads it."""
    return {id(p): n for n, p in model.named_parameters()}


def _share_names(layer: AnalogLayer, first_names: dict[int, str]) -> None:
    for module in layer.modules():
        if isinstance(module, AnalogLayer):
            for key, site in module.sites.items():
                module.sites[key] = replace(site, name=first_names.get(id(getattr(module, key)), site.name))


def _put(root: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Replace the module called ``name``; returns the root (the layer itself for "")."""
    if not name:
        return layer
    parent, _, key = name.rpartition(".")
    setattr(root.get_submodule(parent), key, layer)
    return root


def _digital_parameters(model: nn.Module, inspection: Inspection) -> Iterable[str]:
    for row in inspection.rows:
        if row.decision == "digital" and row.reason in ("on request", "not selected by where="):
            module = model.get_submodule(row.name)
            yield from (f"{row.name}.{n}" if row.name else n for n, _ in module.named_parameters())


def _install_hooks(model: nn.Module, substrate: Surrogate, allowed: frozenset[str]) -> None:
    if not all(site.is_ideal for _, layer in analog_layers(model) for site in layer.sites.values()):
        # An ideal network draws nothing: torch's random numbers (dropout) stay those of the digital one.
        model.register_forward_pre_hook(NewChip(substrate))
    if isinstance(model, AnalogLayer):
        return  # there is no code of the user's around it to watch
    model.register_forward_pre_hook(FirstForward(allowed))


def to_digital(model: nn.Module) -> nn.Module:
    """A digital copy of a converted network: the same torch modules and parameters as before, exactly.

    State dict, keys, tied weights and dtypes are those of the digital network; the weights are the
    trained ones. Hooks of the conversion are gone.
    """
    twin = copy.deepcopy(model)
    replaced: dict[int, nn.Module] = {}
    inner: set[int] = set()  # parts of a layer (attention's out-projection) go back with their layer
    for name, module in list(twin.named_modules(remove_duplicate=False)):
        if isinstance(module, AnalogLayer) and id(module) not in inner:
            if id(module) not in replaced:
                replaced[id(module)] = module.to_digital()
                move_hooks(module, replaced[id(module)])
                inner.update(id(part) for part in module.modules() if part is not module)
            twin = _put(twin, name, replaced[id(module)])
    remove_hooks(twin, NewChip, FirstForward)
    allow_nested_tensors(twin)
    return twin


def surrogate_of(model: nn.Module) -> Surrogate:
    """The surrogate that the analog layers of ``model`` share; raises where there is none."""
    for _, layer in analog_layers(model):
        if isinstance(layer.substrate, Surrogate):
            return layer.substrate
    raise ConversionError(
        f"{type(model).__name__} has no analog layer on a surrogate. Way out: mho.convert(model, hardware) first."
    )


def set_noise_scale(model: nn.Module, scale: float) -> None:
    """Multiply all random terms of the surrogate and of stochastic layers by ``scale`` >= 0; no-op elsewhere."""
    if not 0 <= scale < float("inf"):
        raise InputError(f"noise scale = {scale!r}: must be finite and not negative.")
    for module in model.modules():
        if isinstance(module, StochasticResidual):
            module.noise_scale = float(scale)
    for _, layer in analog_layers(model):
        if isinstance(layer.substrate, Surrogate):
            layer.substrate.noise_scale = float(scale)


def set_censoring(model: nn.Module, limit: float | None) -> None:
    """Cut static normals above ``limit`` > 0 to it in training (``None``: do not); no-op on digital networks.

    n <- min(n, limit): right-censored noise trains for the low percentiles (Yan et al., ICCAD 2023).
    """
    if limit is not None and not 0 < limit < float("inf"):
        raise InputError(f"censoring limit = {limit!r}: must be above 0 (1 to 2 is usual), or None.")
    for _, layer in analog_layers(model):
        if isinstance(layer.substrate, Surrogate):
            layer.substrate.censor = limit


def new_chip(model: nn.Module) -> None:
    """Draw a new chip for the surrogate now (a forward pass of the whole network does it by itself)."""
    surrogate_of(model).new_chip()


@contextmanager
def _calibrating(model: nn.Module) -> Any:
    substrate = surrogate_of(model)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield substrate
    finally:
        substrate.calibrating = 0
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable, *, count: int = 10) -> nn.Module:
    """Set the ranges of all converters from ``count`` batches of inputs (without noise, in eval mode).

    Each range becomes the mean over the batches of what each asked for (max or a number of standard
    deviations, by the hardware's description). ``batches``: inputs, or (input, target) pairs. Ranges
    known before are forgotten. Returns the model.
    """
    for _, layer in analog_layers(model):
        for key in layer.sites:
            getattr(layer, key + "_ranges").zero_()
    with _calibrating(model) as substrate:
        seen = 0
        for batch in batches:
            x = batch[0] if isinstance(batch, (tuple, list)) else batch
            if isinstance(x, Tensor) and x.numel() == 0:
                continue
            seen += 1
            substrate.calibrating = seen
            model(x)
            if seen == count:
                break
    if seen == 0:
        raise InputError("calibrate: there was no batch to calibrate with. Way out: give at least one batch of inputs.")
    return model
