"""The tables of a recipe, with their admissible values."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from mho.models import check_model
from mho.train.schedule import NoiseLevels, Schedule
from mho.units import seconds


def frozen_list(value: Any) -> Any:
    """TOML has lists only; a frozen recipe holds tuples."""
    return tuple(value) if isinstance(value, list) else value


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Bits = Annotated[int, Field(ge=2, le=24)]
Seed = Annotated[int, Field(ge=0)]


class Table(BaseModel):
    """A frozen table: no unknown keys, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DataSettings(Table):
    """What is learned. ``subset``: the first so many training images (None: all)."""

    dataset: Literal["mnist-mini", "mnist", "fashion-mnist", "cifar10", "tiny-imagenet"] = "mnist-mini"
    subset: Count | None = None
    batch_size: Count = 128
    augment: Annotated[tuple[Literal["shift", "flip"], ...], BeforeValidator(frozen_list)] = ()


class NetworkSettings(Table):
    """A network of :mod:`mho.models` and its arguments."""

    model: str = "lenet"
    args: dict[str, Any] = {}

    @model_validator(mode="after")
    def _known(self) -> Self:
        check_model(self.model, self.args)
        return self


class LossSettings(Table):
    """Weights of the terms that :class:`mho.PhysicsInformedLoss` adds to the cross entropy; 0: the term is off."""

    jacobian: NonNegative = 0.0
    jacobian_estimator: Literal["projection", "exact", "margin"] = "projection"
    margin_noise: NonNegative = 0.0
    levels: NonNegative = 0.0
    levels_schedule: Literal["constant", "linear", "late"] = "linear"
    range_filling: NonNegative = 0.0
    range_target: Annotated[float, Field(gt=0, le=1)] = 0.5
    neuron: NonNegative = 0.0
    asymmetry: NonNegative = 0.0
    power: NonNegative = 0.0


class TrainSettings(Table):
    """How it is learned.

    ``momentum`` is SGD's (Nesterov) or AdamW's beta1; ``weight_decay`` acts on tensors of two or more
    dimensions. For the hardware-aware network alone:

    - ``clip_sigma``: fixed bound of each weight (of each channel where the hardware has a range a column) in
      standard deviations of its initial values; ``weight_decay_bounded``: decay of the weights that have one
      (None: as the others). Decay empties the range that the bound fills.
    - ``ranges``: of the converters, a running observation or learned.
    - ``noise_scale`` times the hardware's noise (above 1 over-regularises), ``ramp_fraction``: it rises from 0
      over this share of the steps, ``noise_levels``: each step draws its level (:func:`level_factor`), ``censor``:
      static normals beyond so many sigma upwards are cut to it (Yan et al., ICCAD 2023: TRICE).
    - ``chip_gain`` (relative) and ``chip_offset_lsb``: standard deviations of converter errors that the training
      chips have and the described hardware does not need to have.
    - ``distill``: share of the loss that follows the digital network's softmax at temperature ``distill_T``.
    - ``loss``: terms of the physics-informed loss (a table ``[train.loss]``), beside the teacher where there is one.

    ``noise_injection`` is the field's common practice as a baseline: the hardware's noise from the first step to
    the last on weights scaled by their largest, and none of the above.

    ``warm_start = "digital"``: a digital network is trained first, ``epochs`` long, and every network that
    a run compares, the digital baseline too, continues from it for ``epochs_hardware`` epochs with
    ``lr_hardware`` (None: as before). Without it all start from one initialisation. Either way all
    have the same budget.

    What ``mho.fit`` itself cannot give (``clip_sigma``, learned ``ranges``, ``chip_gain``, ``chip_offset_lsb``,
    ``epochs_hardware``, ``lr_hardware``) it refuses where the network does not have it; ``mho run`` sees to all.
    """

    epochs: Count = 6
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.1
    momentum: BelowOne = 0.9
    weight_decay: NonNegative = 5e-4
    schedule: Schedule = "onecycle"
    label_smoothing: BelowOne = 0.1
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    clip_sigma: Positive | None = None
    weight_decay_bounded: NonNegative | None = None
    ranges: Literal["calibrated", "learned"] = "calibrated"
    noise_scale: NonNegative = 1.0
    ramp_fraction: Share = 0.0
    noise_levels: NoiseLevels = "fixed"
    censor: Positive | None = None
    chip_gain: NonNegative = 0.0
    chip_offset_lsb: NonNegative = 0.0
    warm_start: Literal["digital"] | None = None
    epochs_hardware: Count | None = None
    lr_hardware: Positive | None = None
    distill: Share = 0.0
    distill_T: Positive = 2.0
    loss: LossSettings | None = None

    @model_validator(mode="after")
    def _warm(self) -> Self:
        if self.warm_start is None and (self.epochs_hardware is not None or self.lr_hardware is not None):
            raise ValueError('epochs_hardware and lr_hardware need warm_start = "digital". Fix: add it, or remove them')
        return self

    @property
    def moves_noise(self) -> bool:
        """Whether the noise is ever other than the hardware's own."""
        return self.noise_scale != 1.0 or self.ramp_fraction > 0.0 or self.noise_levels != "fixed"

    def for_pretraining(self) -> "TrainSettings":
        """What the common start of a warm run is trained with: nothing that only analog hardware has."""
        names = (*_OF_THE_HYBRID, "warm_start", "epochs_hardware", "lr_hardware")
        return self.model_copy(update={name: TrainSettings.model_fields[name].default for name in names})

    def for_hardware(self) -> "TrainSettings":
        """Of the hardware-aware network: its own epochs and learning rate where the start is warm."""
        own: dict[str, Any] = {"epochs_hardware": None, "lr_hardware": None}
        if self.warm_start is not None:
            own |= {"epochs": self.epochs_hardware or self.epochs, "lr": self.lr_hardware or self.lr}
        return self.model_copy(update=own)

    def for_digital(self) -> "TrainSettings":
        """Of the baselines: the budget of the hardware-aware network without its noise and bounds."""
        return self.for_hardware().for_pretraining()


_OF_THE_HYBRID = (
    "clip_sigma", "weight_decay_bounded", "ranges", "noise_scale", "ramp_fraction", "noise_levels", "censor",
    "chip_gain", "chip_offset_lsb", "distill", "distill_T", "loss",
)  # fmt: skip


class Unseen(Table):
    """Hardware that no network was trained for, on which a run judges them all.

    ``hardware``: a preset's name or a TOML path; ``age`` after programming (None: as described), with global
    drift compensation where ``compensate``.
    """

    name: Annotated[str, Field(min_length=1)]
    hardware: Annotated[str, Field(min_length=1)]
    age: str | None = None
    compensate: bool = False

    @field_validator("age")
    @classmethod
    def _duration(cls, age: str | None) -> str | None:
        if age is not None:
            seconds(age)
        return age


class EvaluateSettings(Table):
    """On which chips, at which ages, noise scales and converter bits it is judged (empty: as the hardware is).

    ``ages_hardware``: a hardware of its own for the ages, where the run's own does not age.
    ``sweep_images``: the first so many test images for the sweeps (None: all); the final point takes all.
    """

    chips: Count = 25
    ages: Annotated[tuple[str, ...], BeforeValidator(frozen_list)] = ()
    ages_hardware: str | None = None
    sweep_images: Count | None = None
    noise_scales: Annotated[tuple[NonNegative, ...], BeforeValidator(frozen_list)] = ()
    bits: Annotated[tuple[Bits, ...], BeforeValidator(frozen_list)] = ()
    unseen: Annotated[tuple[Unseen, ...], BeforeValidator(frozen_list)] = ()
    seed: Seed = 0
    batch_size: Count = 500

    @field_validator("ages")
    @classmethod
    def _durations(cls, ages: tuple[str, ...]) -> tuple[str, ...]:
        for age in ages:
            seconds(age)
        return ages


class Recipe(Table):
    """One experiment: data, network, hardware (a preset's name or a TOML path), training, evaluation, seeds.

    ``baselines``: what is trained beside the digital and the hardware-aware network, with the same budget.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    hardware: Annotated[str, Field(min_length=1)] = "generic"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), BeforeValidator(frozen_list)] = (0,)
    baselines: Annotated[tuple[Literal["quantized", "noise_injection"], ...], BeforeValidator(frozen_list)] = (
        "quantized",
    )
    data: DataSettings = DataSettings()
    network: NetworkSettings = NetworkSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("the same seed twice is the same run twice")
        return seeds
