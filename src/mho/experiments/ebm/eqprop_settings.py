"""Settings of ``mho run ebm-eqprop``."""

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
from mho.hardware import GenericCell, Hardware, load_hardware
from mho.physics.scaling import scale_hardware_noise

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Table(BaseModel):
    """A frozen table without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataTable(Table):
    """What is learned. ``subset``: the first so many training images; ``pixels = "unit"``: in [0, 1], else
    normalised."""

    dataset: Literal["mnist-mini", "mnist", "fashion-mnist", "cifar10"] = "mnist-mini"
    subset: Count | None = None
    batch_size: Count = 100
    augment: tuple[Literal["shift", "flip"], ...] = ()
    pixels: Literal["unit", "normalised"] = "unit"


class NetworkTable(Table):
    """``kind`` with its sizes (``units`` of dense hidden layers, ``channels`` of convolutions); ``gain`` of the start
    of the first layer and ``output_gain`` of the others (None: as the network has them); ``bound_sigma``: fixed full
    scale of the weights, in standard deviations of their start. ``free_steps``: sweeps of an inference.
    """

    kind: Literal["dense", "conv", "hopfield-resnet13"] = "dense"
    units: tuple[Count, ...] = (512,)
    channels: tuple[Count, ...] | None = None
    gain: Positive | None = None
    output_gain: Positive | None = None
    bound_sigma: Positive | None = 3.0
    free_steps: Count = 40


class TrainTable(Table):
    """How it is learned: nudging, sweeps of the phases, optimizer. ``lr``: one rate, or one a layer.

    ``settle`` and ``reads``: of each phase of the network that trains on virtual chips; ``noise_scale`` times the
    hardware's noise. ``noise_free``, ``on_chips``: which networks are trained, one of the two at least; either is read
    on chips.
    """

    epochs: Count = 10
    variant: Literal["centred", "positive", "negative", "holomorphic"] = "centred"
    nudge: Positive = 0.5
    points: Count = 4
    free_steps: Count = 20
    nudged_steps: Count = 10
    settle: Annotated[int, Field(ge=0)] = 12
    reads: Count = 4
    noise_scale: NonNegative = 1.0
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Positive | tuple[NonNegative, ...] = 2e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 0.0
    schedule: Literal["constant", "cosine", "onecycle"] = "cosine"
    noise_free: bool = True
    on_chips: bool = True

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.noise_free or self.on_chips):
            raise ValueError("noise_free = false and on_chips = false leave nothing to train. Fix: one of them true")
        return self


class ConditionsTable(Table):
    """Changes of the hardware: shares of the full range, and bits of the states (None: as it is described)."""

    programming_noise: NonNegative | None = 0.08
    read_noise: NonNegative | None = 0.01
    bits: Annotated[int, Field(ge=1, le=16)] | None = 6
    temperature: NonNegative = 0.0


class EvaluateTable(Table):
    """On how many chips of which lot; ``noise_scales`` of the sweep over ``sweep_images`` and ``sweep_chips``."""

    chips: Count = 25
    seed: Annotated[int, Field(ge=0)] = 0
    noise_scales: tuple[NonNegative, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
    sweep_chips: Count = 10
    sweep_images: Count = 2000
    settle: Annotated[int, Field(ge=0)] = 12
    reads: Count = 8
    batch_size: Count = 500


class Settings(Table):
    """The whole run; every field has a default, which takes a minute on two cores."""

    name: str = "ebm-eqprop"
    hardware: str = "generic-channel"
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    data: DataTable = DataTable()
    network: NetworkTable = NetworkTable()
    train: TrainTable = TrainTable()
    conditions: ConditionsTable = ConditionsTable()
    evaluate: EvaluateTable = EvaluateTable()

    def hw(self) -> Hardware:
        """The hardware under the conditions. Raises :class:`RecipeError` for dials that its cell does not have."""
        hw = load_hardware(self.hardware)
        dials = self.conditions.model_dump(include={"programming_noise", "read_noise"}, exclude_none=True)
        if not dials:
            return hw
        if not isinstance(hw.cell, GenericCell):
            raise RecipeError(
                f"{self.name}: conditions.{next(iter(dials))}: cells of {hw.name} have laws of their own. Fix: a "
                "generic hardware, or leave programming_noise and read_noise out."
            )
        return hw.replace(cell=replace(hw.cell, **dials))

    def pictures(self, data: Dataset) -> Dataset:
        """``data`` with its pixels as the network sees them."""
        if self.data.pixels == "normalised":
            return data
        channels = len(data.mean)
        return replace(data, mean=(0.0,) * channels, std=(1.0,) * channels)

    def batches(self, data: Dataset, seed: int) -> Batches:
        """Training batches of ``data`` (from :meth:`pictures`)."""
        return data.train_batches(
            self.data.batch_size, seed, self.data.augment or None, self.data.subset, max_shift=1, drop_last=True
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

    def loss(self, hw: Hardware | None) -> EqPropLoss:
        """The loss of training, on new chips of ``hw`` or (None) without noise."""
        table = self.train
        return EqPropLoss(
            nudging=Nudging(table.variant, table.nudge, table.points),
            free=Relaxation(table.free_steps, None),
            nudged=Relaxation(table.nudged_steps, None),
            hardware=None if hw is None else scale_hardware_noise(hw, table.noise_scale),
            dynamics=None if hw is None else self.dynamics(hw, table.settle, table.reads),
        )

    def dynamics(self, hw: Hardware, settle: int, reads: int) -> Dynamics:
        """How states move on a chip."""
        return Dynamics(bits=self.bits(hw), temperature=self.conditions.temperature, settle=settle, reads=reads)
