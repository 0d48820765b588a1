"""Optimizer steps as the cells of an analog array can make them."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple, final, get_args

import torch
from torch import Tensor, nn

from mho.errors import CheckpointError, HardwareError, InputError, NonFiniteError, TrainingError, nearest
from mho.hardware.spec import Hardware
from mho.hardware.update import PulsedDevice
from mho.rng import derive_seed
from mho.train.achievable_cells import Outside, make_blocks, parameter_names
from mho.train.achievable_report import UpdateReport, make_report
from mho.train.achievable_rules import Count, Losses, Rounding, Rule, Writer

_KEY = "achievable"


class Counters(NamedTuple):
    """Writes and pulses of each cell of one parameter, in its shape."""

    writes: Tensor
    pulses: Tensor


@final
class AchievableUpdates(torch.optim.Optimizer):
    """Any torch optimizer, its steps turned into what pulsed cells can do.

    A penalty on a step does nothing inside a loss: autograd does not see the step. So the device lives here. The
    inner optimizer says what change d of each weight is wanted (lr, momentum, weight decay are its own), then
    ``rule`` writes it, with scale = weight of one unit of the device:

    * ``"pulses"``: a whole number of pulses by stochastic rounding, each moving the cell by dw_min f(w) with its
      cycle-to-cycle and device-to-device spread. ``count="nominal"``: |d| / (dw_min scale) pulses, the *count* is
      unbiased and the weight changes in the mean by d F(w) - |d| G(w), with F = (f_up + f_down) / 2 and
      G = (f_down - f_up) / 2: what hardware does that writes without reading. ``count="state-aware"``: the
      weight's state is read and the mean *change of a nominal cell* is exactly d, where it is in reach.
    * ``"threshold"`` (EaPU, Liu et al. 2025): with T = write_noise: |d| < T becomes T sign(d) with probability
      |d| / T and else nothing, a larger d stays; written cells alone get a new error of std T. Few cells are
      written; unbiased. Program-and-verify reaches its target, so steps and their spreads play no part; pulses
      are counted as |d| / dw_min, rounded up.
    * ``"exact"``: d itself, within the cells' bounds; only writes are counted. For comparison.

    Analog gradient descent on an asymmetric device does not end in the minimum. With g the gradient under noise,
    E[dw] = -lr (F(w) E[g] + G(w) E|g|), so it rests where F(w) E[g] = -G(w) E|g|: for E[g] = h (w - w0) and soft
    bounds +-b of slope 1 (F = 1, G = w / b) at w = w0 / (1 + E|g| / (h b)), an implicit penalty E|g| w^2 / (2 b)
    towards the symmetry point (Wu et al. 2024, arXiv:2406.12774). ``count="state-aware"`` does not have it.

    ``hardware``: a :class:`Hardware` with ``update``, or a :class:`PulsedDevice`. On cells are the analog weights of
    ``model``, whose fixed bound (``clip_sigma``) then lies at the nearer device bound; without a model every
    parameter of two or more dimensions, in units of the device (scale 1, as for a weight without a bound). The
    others step digitally; :meth:`report` lists them. ``outside``: what to do with weights that start beyond
    their cells' bounds. ``rounding="nearest"`` stalls below half a step; it is there to show that.

    Use it as an optimizer: ``step``, ``zero_grad``, ``param_groups`` (shared with the inner one), ``state_dict``; do
    not step the inner one yourself. Random numbers depend on (``seed``, name, number of the step) alone. A step with
    a gradient that is NaN or infinite raises :class:`NonFiniteError` and writes nothing (given as gradients, it
    changes nothing at all; found by a closure, the inner optimizer has seen it). A train beyond ``pulse_limit`` is
    cut, and counted in :meth:`report`.

    Raises :class:`HardwareError` for a hardware without ``update``, a rule that the device has no numbers for,
    weights beyond bounds; :class:`InputError` for an unknown option or where no parameter stands on cells.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        hardware: Hardware | PulsedDevice,
        *,
        model: nn.Module | None = None,
        rule: Rule = "pulses",
        count: Count = "nominal",
        rounding: Rounding = "stochastic",
        outside: Outside = "error",
        seed: int = 0,
    ) -> None:
        for name, value, known in (
            ("rule", rule, Rule),
            ("count", count, Count),
            ("rounding", rounding, Rounding),
            ("outside", outside, Outside),
        ):
            _check_option(name, value, known)
        self._device = _device(hardware)
        if rule == "threshold" and self._device.write_noise == 0.0:
            raise HardwareError(
                "AchievableUpdates: rule = 'threshold' and PulsedDevice.write_noise = 0.0: the threshold is the write "
                "noise. Fix: set update.write_noise, or choose another rule."
            )
        self._ready = False
        self.inner = optimizer
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self._ready = True
        self._share()
        self._writer = Writer(rule, count, rounding)
        self._seed, self._steps, self._losses = seed, 0, Losses()
        named = list(parameter_names(self.param_groups, model))
        self._blocks = make_blocks(named, model, self._device, seed, outside)
        on_cells = {id(block.parameter) for block in self._blocks}
        self._digital = tuple(name for name, parameter in named if id(parameter) not in on_cells)

    def _share(self) -> None:
        """One list of groups and one state for both optimizers."""
        self.param_groups, self.state = self.inner.param_groups, self.inner.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused: cells are fabricated once. Add the group to the inner optimizer before it is wrapped."""
        if self._ready:
            raise TrainingError(
                "AchievableUpdates: a group of parameters cannot be added to fabricated cells. "
                "Fix: add it to the inner optimizer, then wrap that."
            )
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the inner optimizer, written as the cells can. Returns the closure's loss."""
        if closure is None:
            grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            if grads and not bool(torch.isfinite(nn.utils.get_total_norm(grads))):
                raise _non_finite()
        before = [block.parameter.detach().clone() for block in self._blocks]
        loss = self.inner.step(closure) if closure is not None else self.inner.step()
        if closure is not None and not all(bool(block.parameter.isfinite().all()) for block in self._blocks):
            for block, old in zip(self._blocks, before, strict=True):
                block.parameter.copy_(old)
            raise _non_finite()
        for block, old in zip(self._blocks, before, strict=True):
            generator = torch.Generator(block.parameter.device)
            generator.manual_seed(derive_seed(self._seed, _KEY, block.name, self._steps))
            self._writer.write(block, old, generator, self._losses)
        self._steps += 1
        return loss

    @property
    def counters(self) -> dict[str, Counters]:
        """Writes and pulses of each cell by parameter; do not change them."""
        return {block.name: Counters(block.writes, block.pulses) for block in self._blocks}

    def report(self) -> UpdateReport:
        """What the device can do, and what its cells have done so far; prints as a table."""
        return make_report(
            self._writer, self._steps, self._device, self._seed, self._blocks, self._digital, self._losses
        )

    def _facts(self) -> dict[str, Any]:
        """What a resumed run must share."""
        return {
            "optimizer": type(self.inner).__name__,
            **asdict(self._writer),
            "seed": self._seed,
            "device": repr(self._device),
        }

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's state, and under "achievable" the cells, their counters and the number of the step."""
        own = {
            "facts": self._facts(),
            "steps": self._steps,
            "losses": asdict(self._losses),
            "cells": {block.name: block.state() for block in self._blocks},
        }
        return {**self.inner.state_dict(), _KEY: own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken, to the same bits.

        :class:`CheckpointError` where the state is another optimizer's, device's or network's; nothing is changed then.
        """
        own = state_dict.get(_KEY)
        if own is None:
            raise CheckpointError(
                "AchievableUpdates: the state holds no cells. Fix: load it into the inner optimizer, before it is "
                "wrapped; or take the state of a run with AchievableUpdates."
            )
        different = [key for key, value in self._facts().items() if own["facts"].get(key) != value]
        if different:
            told = ", ".join(f"{k} was {own['facts'].get(k)!r} and is {self._facts()[k]!r}" for k in different)
            raise CheckpointError(f"AchievableUpdates: the state of another run: {told}. Fix: wrap as that run did.")
        shapes = {name: tuple(part["writes"].shape) for name, part in own["cells"].items()}
        here = {block.name: tuple(block.parameter.shape) for block in self._blocks}
        if shapes != here:
            raise CheckpointError(
                f"AchievableUpdates: the state has cells {shapes}, this network {here}. Fix: build the same network."
            )
        self.inner.load_state_dict({key: value for key, value in state_dict.items() if key != _KEY})
        self._share()
        self._steps, self._losses = own["steps"], Losses(**own["losses"])
        for block in self._blocks:
            block.load(own["cells"][block.name])

    def __getstate__(self) -> dict[str, Any]:
        """Everything: torch's own version would keep the groups and forget the cells."""
        return dict(self.__dict__)


def _non_finite() -> NonFiniteError:
    return NonFiniteError(
        "AchievableUpdates: a gradient is NaN or infinite; no cell was written. "
        "Fix: leave such batches out (mho.fit does), or lower the learning rate."
    )


def _check_option(name: str, value: str, known: Any) -> None:
    options = get_args(known)
    if value not in options:
        raise InputError(f"AchievableUpdates: {name} = {value!r}. Fix: {nearest(str(value), options)}")


def _device(hardware: Hardware | PulsedDevice) -> PulsedDevice:
    if isinstance(hardware, PulsedDevice):
        return hardware
    if hardware.update is None:
        raise HardwareError(
            f"Hardware {hardware.name!r}.update = None: it does not say how its cells answer to pulses. "
            "Fix: add an [update] section, or hw.replace(update=PulsedDevice(...))."
        )
    return hardware.update
