"""Training by equilibrium propagation, and judging the result on virtual chips.

The gradient is made by local products (:mod:`mho.ebm.eqprop`) and handed to :func:`mho.fit` as that of its loss. So
checkpoints, resuming to the same bits, Ctrl-C, refused steps, schedules and averaged weights are those of every other
network, and any torch optimizer, :class:`mho.train.AchievableUpdates` too, makes the step.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from mho.chips.substrate import chip_seed
from mho.ebm.conductances import Cells, program_cells
from mho.ebm.eqprop import Nudging, eqprop_gradient
from mho.ebm.hopfield.clamped import Dynamics, clamp
from mho.ebm.hopfield.costs import Cost
from mho.ebm.hopfield.network import HopfieldNet
from mho.ebm.relax import Relaxation
from mho.errors import InputError, NonFiniteError, TrainingError
from mho.evaluation.result import Result
from mho.hardware.spec import Hardware
from mho.physics.scaling import scale_hardware_noise
from mho.rng import derive_seed, stream
from mho.train import History, TrainSettings, fit
from mho.train.run import Loader, OnEpoch
from mho.units import seconds

FREE = Relaxation(max_steps=20, tolerance=None)
NUDGED = Relaxation(max_steps=10, tolerance=None)


@final
@dataclass
class EqPropLoss:
    """A loss of :func:`mho.fit` whose gradient is that of equilibrium propagation.

    ``hardware``: each step runs on a new chip of it (programming error, levels, faults inside; the gradient of the
    chip is applied to the wanted weights), with the reads and converters of ``dynamics``. ``input_dropout``: share
    of the inputs silenced in a step, for comparison. ``correct`` and ``seen`` count the answers of the free phase
    since :meth:`take`.
    """

    nudging: Nudging = field(default_factory=Nudging)
    cost: Cost | None = None
    free: Relaxation = FREE
    nudged: Relaxation = NUDGED
    hardware: Hardware | None = None
    dynamics: Dynamics | None = None
    input_dropout: float = 0.0
    correct: int = 0
    seen: int = 0

    def on_model(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Mean cost of the free state over the batch; its backward pass hands out the local gradients."""
        if not isinstance(model, HopfieldNet):
            raise InputError(
                f"EqPropLoss: {type(model).__name__} is no HopfieldNet. Way out: mho.fit with its own loss."
            )
        if not bool(torch.isfinite(x).all()):
            raise NonFiniteError("EqPropLoss: the batch holds NaN or infinity; the step is refused.")
        seed = int(torch.randint(0x7FFF_FFFF_FFFF_FFFF, ()).item())
        if self.input_dropout:
            keep = 1 - self.input_dropout
            x = x * torch.empty_like(x).bernoulli_(keep, generator=stream(seed, "dropout")) / keep
        cells = None
        if self.hardware is not None:
            cells = program_cells(
                model.values(),
                self.hardware,
                chip_seed=seed,
                bounds=model.full_scales,
                digital=model.digital,
                counter=True,
            )
        found = eqprop_gradient(
            model,
            x,
            y,
            nudging=self.nudging,
            cost=self.cost,
            free=self.free,
            nudged=self.nudged,
            cells=cells,
            dynamics=self.dynamics,
            generator=stream(seed, "reads"),
        )
        self.correct += found.correct
        self.seen += len(y)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        gradients = [found.gradients[name] for name, _ in named]
        loss: Tensor = _Local.apply(found.loss, gradients, *(p for _, p in named))  # type: ignore[no-untyped-call]
        return loss

    def take(self) -> float:
        """Percent right in the free phases since the last call."""
        share = 100.0 * self.correct / max(self.seen, 1)
        self.correct = self.seen = 0
        return share


class _Local(torch.autograd.Function):
    """A number whose gradient with respect to the parameters is given."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (scale,) = upstream
        return None, None, *(grad * scale for grad in ctx.gradients)


def layer_groups(net: HopfieldNet, lr: float | Sequence[float]) -> list[dict[str, Any]]:
    """Parameter groups with a learning rate a layer (then one of the readout): for any torch optimizer."""
    holders = [*net.layers, *([] if net.readout is None else [net.readout])]
    rates = [float(lr)] * len(holders) if isinstance(lr, int | float) else [float(value) for value in lr]
    if len(rates) != len(holders) or min(rates) < 0:
        raise TrainingError(f"lr = {lr!r}: {len(holders)} layers. Fix: one rate, or one a layer, none negative.")
    return [{"params": list(h.parameters()), "lr": rate} for h, rate in zip(holders, rates, strict=True)]


def eqprop_optimizer(
    net: HopfieldNet,
    lr: float | Sequence[float],
    name: str = "adam",
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """The optimizer that :func:`fit_eqprop` makes of the same arguments: "adam" (AdamW) or "sgd"."""
    groups = layer_groups(net, lr)
    if name == "adam":
        return torch.optim.AdamW(groups, betas=(momentum, 0.999), weight_decay=weight_decay, fused=True)
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=True)
    raise TrainingError(f"fit_eqprop: optimizer = {name!r}. Fix: 'adam', 'sgd', or an optimizer.")


def fit_eqprop(
    net: HopfieldNet,
    loader: Loader,
    loss: EqPropLoss | None = None,
    *,
    epochs: int = 10,
    lr: float | Sequence[float] = 1e-3,
    optimizer: torch.optim.Optimizer | Literal["adam", "sgd"] = "adam",
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    schedule: Literal["constant", "cosine", "onecycle"] = "cosine",
    ema_decay: float | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    progress: bool = False,
) -> History:
    """Train ``net`` in place by equilibrium propagation; the loop is that of :func:`mho.fit`.

    ``loader`` yields (x [batch, *input], class numbers [batch]). ``lr``: one rate, or one a layer, input first, the
    readout last. ``nesterov``: of SGD's momentum. ``optimizer``: a name, or an optimizer over the network's parameters
    (:func:`layer_groups` makes its groups), for instance that of :func:`mho.ebm.written_on_cells`. ``checkpoint``,
    ``resume``, ``seed``: as of :func:`mho.fit`, to the same bits.

    Raises what :func:`mho.fit` raises, :class:`~mho.ebm.relax.RelaxationError` where a phase finds no rest, and
    :class:`InputError` where the network does not allow the nudging.
    """
    made = optimizer
    if isinstance(made, str):
        made = eqprop_optimizer(net, lr, made, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    settings = TrainSettings(epochs=epochs, schedule=schedule, ema_decay=ema_decay)
    return fit(
        net,
        loader,
        loss=loss or EqPropLoss(),
        recipe=settings,
        optimizer=made,
        seed=seed,
        checkpoint=checkpoint,
        resume=resume,
        on_epoch=on_epoch,
        progress=progress,
    )


@torch.no_grad()
def class_scores(
    net: HopfieldNet,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    cells: dict[str, Cells] | None = None,
    how: Relaxation | None = None,
    dynamics: Dynamics | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Scores [image, class] and labels [image] of the free state, on the chip of ``cells`` (None: ideal).

    Fresh noise comes from the stream (``seed``, number of the batch)."""
    found, labels = [], []
    for number, (x, y) in enumerate(batches):
        generator = stream(seed, "reads", number)
        system = clamp(net, x, cells=cells, dynamics=dynamics, generator=generator)
        rest = system.run(system.start, how or net.relaxation, "free phase")
        found.append(system.cost.scores(rest.states[-1], system.values))
        labels.append(y)
    if not found:
        raise InputError("class_scores: no batch was given. Fix: check the subset.")
    return torch.cat(found), torch.cat(labels)


def evaluate_on_chips(
    nets: HopfieldNet | Sequence[HopfieldNet],
    batches: Iterable[tuple[Tensor, Tensor]],
    hw: Hardware,
    *,
    chips: int = 25,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    dynamics: Dynamics | None = None,
    noise_scales: Sequence[float] = (1.0,),
    ages: Sequence[float | str] = (),
    how: Relaxation | None = None,
    attrs: dict[str, Any] | None = None,
    tell: Callable[[int, int], object] = lambda done, total: None,
) -> Result:
    """Outcomes of every image on every virtual chip of ``hw``, as a :class:`~mho.evaluation.result.Result`.

    ``nets``: one network, or one a training seed. ``batches``: (x, y) in a fixed order, read once a chip. Chip i is
    that of the lot ``seed`` as in ``mho.fabricate``; ``noise_scales`` multiply every random source of ``hw`` (all
    points share the chips' normals). ``dynamics``: reads and converters; None: noiseless relaxation on the chip's
    values. ``clean``: the same weights on ideal hardware, without noise and converters. ``tell(done, total)`` after
    each chip, age and noise scale.
    """
    models = [nets] if isinstance(nets, HopfieldNet) else list(nets)
    times = tuple(seconds(a) for a in ages) or (hw.environment.t_s,)
    outcomes, clean = [], []
    done, total = 0, len(models) * chips * len(times) * len(noise_scales)
    for model in models:
        scores, labels = class_scores(model, batches, how=how)
        clean.append((scores.argmax(1) == labels).numpy())
        on_chips = np.zeros((chips, len(times), len(noise_scales), 1, len(labels)), dtype=np.bool_)
        for chip in range(chips):
            its_seed = chip_seed(seed, chip)
            for a, t_s in enumerate(times):
                for n, scale in enumerate(noise_scales):
                    scaled = scale_hardware_noise(hw, float(scale))
                    cells = program_cells(
                        model.values(),
                        scaled,
                        chip_seed=its_seed,
                        age=t_s,
                        bounds=model.full_scales,
                        digital=model.digital,
                    )
                    scores, labels = class_scores(
                        model, batches, cells=cells, how=how, dynamics=dynamics, seed=derive_seed(its_seed, "fresh")
                    )
                    on_chips[chip, a, n, 0] = (scores.argmax(1) == labels).numpy()
                    done += 1
                    tell(done, total)
        outcomes.append(on_chips)
    return Result.of(
        np.stack(outcomes),
        clean=np.stack(clean),
        seeds=tuple(range(len(models))) if seeds is None else tuple(seeds),
        ages_s=times,
        noise_scales=tuple(float(s) for s in noise_scales),
        attrs={"hardware": hw.name, "model": "HopfieldNet", "chip_seed": seed, **(attrs or {})},
    )


def without_noise(dynamics: Dynamics) -> Dynamics:
    """The same converters and sweeps without random numbers."""
    return replace(dynamics, read_noise=False, temperature=0.0, reads=1)


__all__ = [
    "FREE",
    "NUDGED",
    "EqPropLoss",
    "class_scores",
    "eqprop_optimizer",
    "evaluate_on_chips",
    "fit_eqprop",
    "layer_groups",
    "without_noise",
]
