"""Training with the device in the forward pass, and putting a trained network on it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, final, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from mho.errors import RangeError
from mho.hardware.spec import Hardware
from mho.lab.chip_twin import ChipTwin
from mho.lab.columns import ByTile, ColumnStream
from mho.lab.gradient import EstimatedLoss, Estimator, SampleLoss, gradient_cosine
from mho.lab.log import EventLog
from mho.lab.placement import Lines, Placement, place
from mho.lab.policy import Budget, Policy
from mho.lab.protocol import Device
from mho.lab.session import Session
from mho.lab.substrate import OnDevice
from mho.lab.watch import Watch, WatchPolicy
from mho.nn.conversion import surrogate_of
from mho.nn.site import Programmed, Site, Substrate, analog_layers, substituted
from mho.train import EpochRecord, History, Recipe, TrainSettings, fit
from mho.train.run import Loader

Modelled = Literal["physics-aware", "straight-through"]
GradientPolicy = Modelled | Estimator
CROSS_ENTROPY: SampleLoss = partial(F.cross_entropy, reduction="none")


@dataclass(frozen=True, eq=False)
class LoopResult:
    """What a run in the loop did. ``columns``: learned on the way (physics-aware); ``cosines``: agreement of the
    gradient with the device, an epoch each.
    """

    history: History
    placement: Placement
    columns: ByTile
    budget: Mapping[str, float]
    events: Mapping[str, int]
    cosines: tuple[float, ...] = field(default=())


def connect_session(device: Device, policy: Policy | None, budget: Budget | None, log: EventLog | None) -> Session:
    """``device`` itself where it is a session already (and nothing else is asked), else a session around it."""
    if isinstance(device, Session) and policy is None and budget is None and log is None:
        return device
    return Session(device, policy, budget=budget, log=log)


def hardware_of(model: nn.Module) -> Hardware:
    """The description that the sites of a network share. Raises :class:`RangeError` where they have several."""
    found = {site.hw for _, layer in analog_layers(model) for site in layer.sites.values()}
    if len(found) != 1:
        raise RangeError(
            f"lab: the network has {len(found)} hardware descriptions, a device is one. Way out: convert with one, or "
            "keep the other layers digital."
        )
    return found.pop()


def fit_in_the_loop(
    model: nn.Module,
    device: Device,
    data: Loader,
    *,
    gradient: GradientPolicy = "physics-aware",
    twin: Hardware | None = None,
    columns: ByTile | None = None,
    loss: SampleLoss = CROSS_ENTROPY,
    recipe: Recipe | TrainSettings | str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    repeats: int = 1,
    dead: Mapping[int, tuple[Lines, Lines]] | None = None,
    policy: Policy | None = None,
    budget: Budget | None = None,
    log: EventLog | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    probe: tuple[Tensor, Tensor] | None = None,
    watch: WatchPolicy | None = None,
    say: Callable[[str], None] | None = None,
    progress: bool = False,
) -> LoopResult:
    """Train ``model`` in place while ``device`` computes its products.

    At each step the weights that changed are written and every product is the device's answer. ``gradient``:
    "physics-aware" (through a :class:`ChipTwin` of ``twin``, by default the description that the model was converted
    for, with columns learned from the stream of products, starting at ``columns``), "straight-through" (the ideal
    product), or :class:`~mho.lab.Spsa`, :class:`~mho.lab.NodePerturbation`, :class:`~mho.lab.FeedbackAlignment` where
    there is no model of the device. ``probe`` (x, y): after each epoch the cosine between the gradient that is used
    and the device's own differences is measured on it and said. The rest as for :func:`mho.fit`; a step of which
    numbers are missing after all retries is skipped and counted there.

    With ``resume`` a run goes on where its checkpoint is, with what it had learned of the columns; calls are named
    after their contents, so nothing is counted twice. Raises what the session raises (:class:`TransportError`,
    :class:`DeviceFault`, :class:`BudgetError`), :class:`RangeError` where the network does not fit, and what
    :func:`mho.fit` raises.
    """
    estimated = not isinstance(gradient, str)
    if not estimated and gradient not in get_args(Modelled):
        known = ", ".join(map(repr, get_args(Modelled)))
        raise RangeError(
            f"fit_in_the_loop: gradient = {gradient!r}. Fix: one of {known}, or an estimator (Spsa, NodePerturbation, "
            "FeedbackAlignment)."
        )
    session = connect_session(device, policy, budget, log)
    placement = place(model, session.capabilities(), dead=dead)
    stream = ColumnStream(columns) if gradient == "physics-aware" else None
    model_of_device = None if stream is None else ChipTwin(twin or hardware_of(model), placement, stream)
    substrate = OnDevice(session, placement, twin=model_of_device, repeats=repeats, log=session.log, stream=stream)
    watching = Watch(substrate, watch)
    chosen: Any = EstimatedLoss(loss, gradient, seed=seed) if estimated else _mean(loss)  # type: ignore[arg-type]
    cosines: list[float] = []

    def on_epoch(record: EpochRecord) -> None:
        text = f"epoch {record.epoch + 1}: loss {record.loss:.4f}"
        if probe is not None and not estimated:
            step = 0.5 * float(probe[0].std()) * probe[0][0].numel() ** 0.5 / 4
            raw, corrected = gradient_cosine(model, loss, *probe, step=step, repeats=4)
            cosines.append(corrected)
            session.log.write(
                "gradient", f"epoch {record.epoch + 1}", f"cosine {raw:.4f}, without noise {corrected:.4f}"
            )
            text += f", cosine with the device's differences {corrected:.3f}"
        if say is not None:
            say(text)

    def on_batch(step: int, value: float | None) -> None:
        watching.step(step)

    with substituted(model, lambda _: substrate):
        history = fit(
            model,
            data,
            loss=chosen,
            recipe=recipe,
            epochs=epochs,
            seed=seed,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            resume=resume,
            carry={"watch": watching} if stream is None else {"watch": watching, "stream": stream},
            on_batch=on_batch if watch is not None else None,
            on_epoch=on_epoch,
            progress=progress,
        )
    learned = {} if stream is None else stream.columns()
    return LoopResult(history, placement, learned, session.budget.summary(), dict(session.log.counts), tuple(cosines))


def _mean(loss: SampleLoss) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda z, y: loss(z, y).mean()


@final
class _Split:
    """Products of ``named`` sites by the device, of the others by what they had."""

    def __init__(self, device: OnDevice, named: frozenset[str], other: Substrate) -> None:
        self.device, self.named, self.other = device, named, other
        self.simulated = other.simulated

    def mvm(
        self,
        site: Site,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ranges: Tensor,
        bound: Tensor | None,
        training: bool,
        programmed: Programmed,
    ) -> Tensor:
        chosen: Substrate = self.device if site.name in self.named else self.other
        return chosen.mvm(site, x, weight, bias, ranges, bound, training, programmed)


def fit_layer_by_layer(
    model: nn.Module,
    device: Device,
    data: Loader,
    *,
    loss: SampleLoss = CROSS_ENTROPY,
    recipe: Recipe | TrainSettings | str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    dead: Mapping[int, tuple[Lines, Lines]] | None = None,
    policy: Policy | None = None,
    budget: Budget | None = None,
    log: EventLog | None = None,
    say: Callable[[str], None] | None = None,
) -> LoopResult:
    """Chip-in-the-loop fine-tuning (Wan et al., Nature 608, 504, 2022): layers go to the device one after the other.

    The first layer is written once and stays; the others are trained, on their surrogate, with what it really answers;
    then the second is written, and so on. ``epochs`` of training after each layer but the last. Each weight is written
    once: for devices whose writing is slow or wears. The ``model`` ends with the weights that were written; deploying
    it on the same device changes nothing. Arguments and errors as for :func:`fit_in_the_loop`.
    """
    session = connect_session(device, policy, budget, log)
    placement = place(model, session.capabilities(), dead=dead)
    substrate = OnDevice(session, placement, log=session.log)
    wanted = {name: p.requires_grad for name, p in model.named_parameters()}
    history = History((), 0, 0)
    written: list[str] = []
    try:
        for name in list(placement.patches)[:-1]:
            written.append(name)
            model.get_parameter(name).requires_grad_(False)
            split = _Split(substrate, frozenset(written), surrogate_of(model))
            with substituted(model, lambda _, split=split: split):  # type: ignore[misc]
                history = fit(model, data, loss=_mean(loss), recipe=recipe, epochs=epochs, seed=seed)
            if say is not None:
                say(f"{name} is on the device: loss {history.loss:.4f}")
    finally:
        for name, p in model.named_parameters():
            p.requires_grad_(wanted[name])
    return LoopResult(history, placement, {}, session.budget.summary(), dict(session.log.counts))
