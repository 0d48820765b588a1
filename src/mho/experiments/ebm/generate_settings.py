"""Settings of ``mho run ebm-generate``."""

from typing import ClassVar, Literal

from pydantic import Field

from mho.ebm.generate import BitFlips, DenoisingModel, Schedule, Training, VirtualSampler, place
from mho.experiments.ebm.described import RunSettings


class Settings(RunSettings):
    """What the run does; every field has a default, which takes a few minutes on two cores.

    The model: ``levels`` of the forward process (the last is 0.5; one level: a monolithic Boltzmann machine), lattice
    ``layout``, ``connectivity`` and ``latent`` nodes a pixel. ``sweeps``, ``readout``: generation, and the free phase
    of training. ``updates`` to ``temperature_range``: training, see :class:`mho.ebm.generate.Training`.
    ``test_coupling_error``, ``test_temperature_error``: the errors at which robustness is judged. ``images``: how many
    each row of the table is made of; ``chips``: chips a row, the images shared out among them. ``skip_test``: the
    first so many test images are not looked at (settings may have been chosen on them).
    """

    EVALUATION: ClassVar = frozenset(
        {
            "readout", "test_coupling_error", "test_temperature_error", "baselines", "rbm_sweeps",
            "images", "chips", "skip_test",
        }
    )  # fmt: skip

    name: str = "ebm-generate"
    dataset: Literal["mnist-mini", "mnist", "fashion-mnist"] = "mnist-mini"
    levels: tuple[float, ...] = Field(default=(0.04, 0.12, 0.25, 0.5), min_length=1)
    layout: Literal["chessboard", "columns", "random"] = "chessboard"
    connectivity: Literal[4, 8, 12, 16, 20, 24] = 24
    latent: int = Field(default=1, ge=1)
    coupling_limit: float = Field(default=0.5, gt=0)
    bias_limit: float = Field(default=4.0, gt=0)
    sweeps: int = Field(default=24, ge=2)
    readout: Literal["last", "majority"] = "majority"
    updates: int = Field(default=8_000, ge=1)
    batch: int = Field(default=64, ge=2)
    lr: float = Field(default=5e-3, gt=0)
    check_every: int = Field(default=1_000, ge=1)
    coupling_bits: int = Field(default=4, ge=2)
    bias_bits: int = Field(default=8, ge=2)
    coupling_error: float = Field(default=0.15, ge=0)
    temperature_range: float = Field(default=0.5, ge=0)
    test_coupling_error: float = Field(default=0.05, ge=0)
    test_temperature_error: float = Field(default=0.2, gt=0, lt=1)
    baselines: bool = True
    rbm_updates: int = Field(default=8_000, ge=1)
    rbm_sweeps: int = Field(default=500, ge=1)
    diffusion_updates: int = Field(default=2_000, ge=1)
    diffusion_steps: int = Field(default=30, ge=2)
    judge_epochs: int = Field(default=4, ge=1)
    images: int = Field(default=2_000, ge=16)
    chips: int = Field(default=5, ge=1)
    skip_test: int = Field(default=0, ge=0)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)

    def model(self) -> DenoisingModel:
        """The untrained denoising model."""
        placement = place(layout=self.layout, connectivity=self.connectivity, latent=self.latent)
        return DenoisingModel(
            placement, BitFlips(self.levels), coupling_limit=self.coupling_limit, bias_limit=self.bias_limit
        )

    def schedule(self) -> Schedule:
        """How images are generated."""
        return Schedule(self.sweeps, self.readout)

    def sampler(self, coupling_error: float = 0.0, temperature_error: float = 0.0) -> VirtualSampler:
        """The chip with its bits, and errors."""
        return VirtualSampler(self.coupling_bits, self.bias_bits, coupling_error, temperature_error)

    def training(self, seed: int) -> Training:
        """How the model is trained."""
        return Training(
            updates=self.updates,
            batch=self.batch,
            sweeps=self.sweeps,
            lr=self.lr,
            sampler=self.sampler(),
            coupling_error=self.coupling_error,
            temperature_range=self.temperature_range,
            check_every=self.check_every,
            seed=seed,
        )
