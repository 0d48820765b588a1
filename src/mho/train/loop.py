"""The training loop: one for digital, quantisation-aware and hardware-aware networks."""

import os
from collections.abc import Mapping

import torch
from torch import nn

from mho import nn as analog
from mho.errors import TrainingError
from mho.objectives.distillation import Teacher
from mho.objectives.loss import PhysicsInformedLoss
from mho.rng import derive_seed
from mho.train.history import History
from mho.train.interrupt import deferred_interrupt
from mho.train.optimizer import make_optimizer
from mho.train.progress import progress_bar
from mho.train.recipe import load_recipe
from mho.train.run import Hooks, Loader, OnBatch, OnEpoch, Run
from mho.train.saving import Carried, Saver
from mho.train.settings import Recipe, TrainSettings
from mho.train.step import Average, BufferGuard, Loss, ModelLoss, StepLoss, distilled, plain
from mho.train.unmet import refuse_unmet


def _settings(recipe: Recipe | TrainSettings | str | None, epochs: int | None) -> TrainSettings:
    if isinstance(recipe, str):
        recipe = load_recipe(recipe)
    settings = recipe.train if isinstance(recipe, Recipe) else recipe or TrainSettings()
    if epochs is None:
        return settings
    if epochs < 1:
        raise TrainingError(f"fit: epochs = {epochs}. Fix: at least 1.")
    return settings.model_copy(update={"epochs": epochs})


def _length(loader: Loader) -> int:
    try:
        count = len(loader)
    except TypeError as error:
        raise TrainingError("fit: the loader has no length. Fix: give it a __len__, the number of batches.") from error
    if count == 0:
        raise TrainingError("fit: the loader is empty. Fix: check the subset and the batch size (drop_last?).")
    return count


def _chosen_loss(loss: Loss | ModelLoss | None, settings: TrainSettings, teacher: Teacher | None) -> Loss | ModelLoss:
    """The loss given or the recipe's; that of a table ``[train.loss]`` listens to the teacher itself."""
    smoothing = settings.label_smoothing
    if settings.loss is None:
        return loss if loss is not None else nn.CrossEntropyLoss(label_smoothing=smoothing)
    if loss is not None:
        raise TrainingError("fit: a loss is given, and the recipe has a table [train.loss]. Fix: one of the two.")
    terms = settings.loss.model_dump()
    return PhysicsInformedLoss("cross_entropy", label_smoothing=smoothing, teacher=teacher, **terms)


def _step_loss(chosen: Loss | ModelLoss, settings: TrainSettings, teacher: Teacher | None) -> StepLoss:
    if teacher is None or settings.loss is not None:
        return plain(chosen)
    if isinstance(chosen, ModelLoss):
        raise TrainingError(
            f"fit: distill = {settings.distill}, but the loss reads the model itself. Fix: "
            "mho.PhysicsInformedLoss(..., teacher=mho.objectives.Teacher(network)), or distill = 0."
        )
    return distilled(chosen, teacher)


def _teacher(settings: TrainSettings, network: nn.Module | None) -> Teacher | None:
    if settings.distill == 0:
        return None
    if network is None:
        raise TrainingError(
            f"fit: distill = {settings.distill}, but no teacher is given. Fix: pass teacher=, or set distill = 0."
        )
    return Teacher(network, settings.distill, settings.distill_T)


def _device(model: nn.Module) -> torch.device:
    for parameter in model.parameters():
        if parameter.requires_grad:
            return parameter.device
    raise TrainingError("fit: the model has no trainable parameter. Fix: set requires_grad on some of them.")


def fit(
    model: nn.Module,
    loader: Loader,
    *,
    loss: Loss | ModelLoss | None = None,
    recipe: Recipe | TrainSettings | str | None = None,
    epochs: int | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    seed: int = 0,
    teacher: nn.Module | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    carry: Mapping[str, Carried] | None = None,
    refuse_limit: int = 10,
    on_batch: OnBatch | None = None,
    on_epoch: OnEpoch | None = None,
    progress: bool = False,
) -> History:
    """Train ``model`` in place, on the device of its parameters.

    ``loader`` yields ``(x, y)``; if it (or its sampler) has ``set_epoch``, that is called, so that its
    order may depend on seed and epoch alone. ``loss(model(x), y)`` is a mean over the batch (default: cross entropy
    with the recipe's label smoothing, and the terms of its table ``[train.loss]``); a loss with ``on_model(model, x,
    y)`` gets the model itself, and one with ``set_progress(share)`` is told before each step how much of the run is
    done. ``recipe`` is a name, a path, a :class:`Recipe` or its :class:`TrainSettings`; ``epochs`` overrides it.
    Without an ``optimizer`` one is made from the recipe; the learning rate of a given one is moved only if a recipe
    is given too, and is set back at the end. After each step analog weights are clamped to their bounds. With
    ``ema_decay`` the model ends with the averaged weights.

    The loop trains what it is given. ``clip_sigma``, ``ranges = "learned"``, ``chip_gain`` and ``chip_offset_lsb``
    shape the network: ``mho.convert(model, hardware, clip_sigma=..., ranges=...)`` gives them, the last two with the
    hardware, and a recipe that asks for what the network has not is refused. ``warm_start`` is what the weights come
    from, which is the caller's to give and cannot be seen here; its ``epochs_hardware`` and ``lr_hardware`` are refused
    (``recipe.train.for_hardware()`` resolves them). Noise settings act on the noise that the network has: on a digital
    one they multiply nothing.

    The result depends on the weights, the data, the settings and ``seed``; the caller's random state is
    neither read nor moved, and callbacks (``on_batch(step, loss or None)``, ``on_epoch(record)``) cannot
    disturb it. A step whose loss or gradient is NaN or infinite is refused: parameters, buffers and
    optimizer stay as they were.

    ``checkpoint``: folder to save to after each epoch and each ``checkpoint_every`` steps. With
    ``resume`` the newest save there is continued, to the same bits as without the break (the loader's
    order must come from ``set_epoch`` or from torch's global generator); without one, training starts. ``carry``:
    further objects with ``state_dict`` and ``load_state_dict`` (tensors by name) that are saved and restored too.
    Ctrl-C stops after the running step, saves, and raises ``KeyboardInterrupt``.

    Raises :class:`TrainingError` after ``refuse_limit`` refused steps in a row, for a loader without
    length or batches, a model without trainable parameters, a loss that is no differentiable number, settings that the
    network does not meet, and averaged weights (``ema_decay``) with :class:`~mho.train.AchievableUpdates`;
    :class:`CheckpointError` when a save cannot be written, or belongs to another run;
    :class:`RecipeError` for a faulty recipe.
    """
    settings = _settings(recipe, epochs)
    batches, device = _length(loader), _device(model)
    if resume and checkpoint is None:
        raise TrainingError("fit: resume without a checkpoint folder. Fix: pass checkpoint=FOLDER.")
    if checkpoint_every is not None and checkpoint_every < 1:
        raise TrainingError(f"fit: checkpoint_every = {checkpoint_every}. Fix: at least 1, or None.")
    refuse_unmet(model, settings, optimizer)
    teaching = _teacher(settings, teacher)
    chosen = _chosen_loss(loss, settings, teaching)
    step_loss = _step_loss(chosen, settings, teaching)
    scheduled = optimizer is None or recipe is not None
    optimizer = optimizer if optimizer is not None else make_optimizer(model, settings)
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    average = Average(settings.ema_decay) if settings.ema_decay is not None else None
    saver = None
    if checkpoint is not None:
        facts = {"seed": seed, "batches": batches, "optimizer_class": type(optimizer).__name__}
        run_table = {**settings.model_dump(exclude_none=True), **facts}
        saver = Saver(checkpoint, model, optimizer, average, device, run_table, dict(carry or {}))
    cuda = [device] if device.type == "cuda" else []
    was_training = model.training
    analog.set_censoring(model, settings.censor)
    try:
        with (
            torch.random.fork_rng(devices=cuda),
            progress_bar(settings.epochs * batches, progress) as show,
            deferred_interrupt() as interrupted,
        ):
            torch.manual_seed(derive_seed(seed, "fit"))
            hooks = Hooks(on_batch, on_epoch, show, interrupted)
            run = Run(
                model=model,
                loader=loader,
                batches=batches,
                settings=settings,
                optimizer=optimizer,
                base_lrs=base_lrs if scheduled else None,
                loss=step_loss,
                loss_object=chosen,
                device=device,
                average=average,
                saver=saver,
                save_every=checkpoint_every,
                refuse_limit=refuse_limit,
                hooks=hooks,
                guard=BufferGuard(model),
            )
            resumed_at = run.resume() if resume else None
            while run.position.epoch < settings.epochs:
                run.epoch()
    finally:
        model.train(was_training)
        analog.set_censoring(model, None)
        if settings.moves_noise:
            analog.set_noise_scale(model, 1.0)
        if scheduled:
            for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = lr
    if average is not None:
        average.move_into(model)
    return run.position.history(resumed_at)
