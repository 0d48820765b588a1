"""Settings of ``mho run ebm-eqprop``."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mho.data import Dataset
from mho.data.batches import Batches
from mho.ebm import (
    Dynamics,
    EqPropLoss,
    HopfieldNet,
    Nudging,
    Relaxation,
    conv_net,
    dense_net,
    hopfield_resnet13,
    state_bits,
)
from mho.errors import RecipeError
from mho.experiments.ebm.described import RunSettings
from mho.experiments.ebm.kept import Ages
from mho.hardware import GenericCell, Hardware, load_hardware
from mho.physics.scaling import scale_hardware_noise

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Sweeps = Annotated[int, Field(ge=0)]
OrNone = BeforeValidator(lambda value: None if value == "none" else value)
"""TOML has no null: the word "none" stands for it."""


class Table(BaseModel):
    """A frozen table without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataTable(Table):
    """What is learned. ``subset``: the first so many training images; ``pixels = "unit"``: in [0, 1], else
    normalised; ``pixel_scale`` divides them further. ``max_shift``: pixels of the augmentation "shift"."""

    dataset: Literal["mnist-mini", "mnist", "fashion-mnist", "cifar10"] = "mnist-mini"
    subset: Count | None = None
    batch_size: Count = 100
    augment: tuple[Literal["shift", "flip"], ...] = ()
    max_shift: Count = 1
    pixels: Literal["unit", "normalised"] = "unit"
    pixel_scale: Positive = 1.0


class NetworkTable(Table):
    """``kind`` with its sizes (``units`` of dense hidden layers, ``channels`` of convolutions); ``gain`` of the start
    of the first layer and ``output_gain`` of the others (None: as the network has them); ``bound_sigma``: fixed full
    scale of the weights, in standard deviations of their start ("none": the largest weight of each tensor, whatever it
    becomes). ``free_steps``: sweeps of an inference.
    """

    kind: Literal["dense", "conv", "hopfield-resnet13"] = "dense"
    units: tuple[Count, ...] = (512,)
    channels: tuple[Count, ...] | None = None
    gain: Positive | None = None
    output_gain: Positive | None = None
    bound_sigma: Annotated[Positive | None, OrNone] = 3.0
    free_steps: Count = 40


class TrainTable(Table):
    """How it is learned: nudging, sweeps of the phases, optimizer. ``lr``: one rate, or one a layer.

    ``settle`` and ``reads``: of each phase of the network that trains on virtual chips (``settle`` None: so many that
    both together are ``free_steps``); ``noise_scale`` times the hardware's noise. ``update``: how the cells of that
    network are written, a rule of :class:`mho.train.AchievableUpdates` for the ``[update]`` of the hardware ("none":
    exactly). ``noise_free``, ``on_chips``: which networks are trained, one of the two at least; either is read on
    chips.
    """

    epochs: Count = 10
    variant: Literal["centred", "positive", "negative", "holomorphic"] = "centred"
    nudge: Positive = 0.5
    points: Count = 4
    free_steps: Count = 20
    nudged_steps: Count = 10
    settle: Sweeps | None = None
    reads: Count = 4
    noise_scale: NonNegative = 1.0
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Positive | tuple[NonNegative, ...] = 2e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 0.0
    schedule: Literal["constant", "cosine", "onecycle"] = "cosine"
    update: Literal["none", "pulses", "threshold", "exact"] = "none"
    noise_free: bool = True
    on_chips: bool = True

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.noise_free or self.on_chips):
            raise ValueError("noise_free = false and on_chips = false leave nothing to train. Fix: one of them true")
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.variant == "holomorphic" and self.points > 2:
            raise ValueError(
                'variant = "holomorphic": the units of every network of a recipe are clipped, converted and noisy, and '
                'clipping is not analytic. Fix: variant = "centred"; or in Python a mho.ebm.HopfieldNet of Sigmoid '
                "units, and EqPropLoss(Nudging('holomorphic')) without hardware and dynamics"
            )
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError('nesterov = true: only SGD with a momentum has it. Fix: optimizer = "sgd", momentum = 0.9')
        if self.update != "none" and not self.on_chips:
            raise ValueError(
                f'update = "{self.update}" and on_chips = false: no network is trained on cells. Fix: on_chips = true'
            )
        return self


class ConditionsTable(Table):
    """Changes of the hardware: shares of the full range, and bits of the states ("none": as it is described)."""

    programming_noise: Annotated[NonNegative | None, OrNone] = 0.08
    read_noise: Annotated[NonNegative | None, OrNone] = 0.01
    bits: Annotated[Annotated[int, Field(ge=1, le=16)] | None, OrNone] = 6
    temperature: NonNegative = 0.0


class EvaluateTable(Table):
    """On how many chips of which lot; ``noise_scales`` and ``ages`` (e.g. "1 day") of the sweeps over ``sweep_images``
    and ``sweep_chips``. ``settle`` sweeps, then the mean of ``reads`` (``settle`` None: so many that both together are
    ``network.free_steps``, an inference).
    """

    chips: Count = 25
    seed: Annotated[int, Field(ge=0)] = 0
    noise_scales: tuple[NonNegative, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
    ages: Ages = ()
    sweep_chips: Count = 10
    sweep_images: Count = 2000
    settle: Sweeps | None = None
    reads: Count = 8
    batch_size: Count = 500


class Settings(RunSettings):
    """The whole run; every field has a default, which takes a minute on two cores."""

    # The last two say, as seeds do, which trainings there are, and nothing of how one goes.
    EVALUATION: ClassVar = frozenset({"evaluate", "network.free_steps", "train.noise_free", "train.on_chips"})

    name: str = "ebm-eqprop"
    hardware: str = "generic-channel"
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    data: DataTable = DataTable()
    network: NetworkTable = NetworkTable()
    train: TrainTable = TrainTable()
    conditions: ConditionsTable = ConditionsTable()
    evaluate: EvaluateTable = EvaluateTable()

    def hw(self) -> Hardware:
        """The hardware under the conditions.

        Raises :class:`RecipeError` for dials that its cell does not have, and for update rules without a device.
        """
        hw = load_hardware(self.hardware)
        if self.train.update != "none":
            self._check_update(hw)
        dials = self.conditions.model_dump(include={"programming_noise", "read_noise"}, exclude_none=True)
        if not dials:
            return hw
        if not isinstance(hw.cell, GenericCell):
            raise RecipeError(
                f"{self.name}: conditions.{next(iter(dials))}: cells of {hw.name} have laws of their own. Fix: a "
                'generic hardware, or programming_noise = "none" and read_noise = "none".'
            )
        return hw.replace(cell=replace(hw.cell, **dials))

    def _check_update(self, hw: Hardware) -> None:
        if hw.update is None:
            raise RecipeError(
                f"{self.name}: train.update = {self.train.update!r}: {hw.name} does not say how its cells answer to "
                "pulses. Fix: a hardware file with a table [update], or leave train.update out."
            )
        if self.network.bound_sigma is None:
            raise RecipeError(
                f'{self.name}: train.update = {self.train.update!r} and network.bound_sigma = "none": a pulse is a '
                "share of a fixed full scale. Fix: bound_sigma = 3."
            )

    def pictures(self, data: Dataset) -> Dataset:
        """``data`` with its pixels as the network sees them."""
        channels, scale = len(data.mean), self.data.pixel_scale
        if self.data.pixels == "normalised":
            return data if scale == 1 else replace(data, std=tuple(scale * std for std in data.std))
        return replace(data, mean=(0.0,) * channels, std=(scale,) * channels)

    def batches(self, data: Dataset, seed: int) -> Batches:
        """Training batches of ``data`` (from :meth:`pictures`)."""
        table = self.data
        return data.train_batches(
            table.batch_size, seed, table.augment or None, table.subset, max_shift=table.max_shift, drop_last=True
        )

    def net(self, data: Dataset, seed: int) -> HopfieldNet:
        """The untrained network."""
        table = self.network
        shape, classes = tuple(data.train_x.shape[1:]), len(data.classes)
        named = {"gain": table.gain, "output_gain": table.output_gain, "bound_sigma": table.bound_sigma}
        common = {key: value for key, value in named.items() if value is not None}
        relaxation = Relaxation(table.free_steps, None)
        if table.kind == "dense":
            return dense_net(shape, classes, table.units, seed=seed, relaxation=relaxation, **common)
        make, wanted = (conv_net, 2) if table.kind == "conv" else (hopfield_resnet13, 4)
        if table.channels is not None:
            if len(table.channels) != wanted:
                raise RecipeError(
                    f"{self.name}: network.channels = {table.channels}: {table.kind} has {wanted} numbers."
                )
            common["channels"] = table.channels  # type: ignore[assignment]
        return make(shape, classes, seed=seed, relaxation=relaxation, **common)  # type: ignore[arg-type]

    def bits(self, hw: Hardware) -> int | None:
        """Bits of the states."""
        return self.conditions.bits or state_bits(hw)

    def loss(self, hw: Hardware | None, data: Dataset | None = None) -> EqPropLoss:
        """The loss of training, on new chips of ``hw`` or (None) without noise; ``data``: as of :meth:`judging`."""
        table = self.train
        return EqPropLoss(
            nudging=Nudging(table.variant, table.nudge, table.points),
            free=Relaxation(table.free_steps, None),
            nudged=Relaxation(table.nudged_steps, None),
            hardware=None if hw is None else scale_hardware_noise(hw, table.noise_scale),
            dynamics=None if hw is None else self._dynamics(hw, data, table.settle, table.reads, table.free_steps),
        )

    def judging(self, hw: Hardware, data: Dataset | None = None) -> Dynamics:
        """How states move on a chip that is judged. ``data``: from :meth:`pictures`, whose pixels the input's converter
        spans; None: pixels in [0, 1]."""
        return self._dynamics(hw, data, self.evaluate.settle, self.evaluate.reads, self.network.free_steps)

    def _dynamics(self, hw: Hardware, data: Dataset | None, settle: int | None, reads: int, steps: int) -> Dynamics:
        return Dynamics(
            bits=self.bits(hw),
            temperature=self.conditions.temperature,
            settle=max(0, steps - reads) if settle is None else settle,
            reads=reads,
            input_range=(0.0, 1.0) if data is None else pixel_range(data),
        )


def pixel_range(data: Dataset) -> tuple[float, float]:
    """The least and the largest number that a pixel of ``data`` can be: black and white of every channel."""
    ends = [((0.0 - mean) / std, (1.0 - mean) / std) for mean, std in zip(data.mean, data.std, strict=True)]
    return min(low for low, _ in ends), max(high for _, high in ends)
