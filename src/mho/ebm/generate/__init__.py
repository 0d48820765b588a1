"""Generation of images by chains of small Boltzmann machines, its baselines, and what the images are worth."""

from mho.ebm.generate.autocorrelation import AdaptivePenalty, autocorrelation
from mho.ebm.generate.chain import Schedule, chip_steps, denoised, generate
from mho.ebm.generate.diffusion import (
    Denoiser,
    DiffusionTraining,
    cosine_flips,
    denoiser_size,
    sample_diffusion,
    train_diffusion,
    width_for,
)
from mho.ebm.generate.energy import Energy, diffusion_energy, digital_sampler_energy, sampler_energy
from mho.ebm.generate.features import Judge, load_judge, train_judge
from mho.ebm.generate.forward import BitFlips, binarized, flipped
from mho.ebm.generate.gradient import Gradient, denoising_gradient
from mho.ebm.generate.metrics import Nearest, frechet_distance, nearest_training, precision_recall
from mho.ebm.generate.model import DenoisingModel
from mho.ebm.generate.placement import Placement, place
from mho.ebm.generate.rbm import PersistentTraining, RestrictedMachine, hidden_for, sample_rbm, train_rbm
from mho.ebm.generate.sampler import DIGITAL, Step, VirtualSampler, gibbs, on_chip
from mho.ebm.generate.score import Reference, Score
from mho.ebm.generate.training import Check, Training, train

__all__ = [
    "DIGITAL",
    "AdaptivePenalty",
    "BitFlips",
    "Check",
    "Denoiser",
    "DenoisingModel",
    "DiffusionTraining",
    "Energy",
    "Gradient",
    "Judge",
    "Nearest",
    "PersistentTraining",
    "Placement",
    "Reference",
    "RestrictedMachine",
    "Schedule",
    "Score",
    "Step",
    "Training",
    "VirtualSampler",
    "autocorrelation",
    "binarized",
    "chip_steps",
    "cosine_flips",
    "denoised",
    "denoiser_size",
    "denoising_gradient",
    "diffusion_energy",
    "digital_sampler_energy",
    "flipped",
    "frechet_distance",
    "generate",
    "gibbs",
    "hidden_for",
    "load_judge",
    "nearest_training",
    "on_chip",
    "place",
    "precision_recall",
    "sample_diffusion",
    "sample_rbm",
    "sampler_energy",
    "train",
    "train_diffusion",
    "train_judge",
    "train_rbm",
    "width_for",
]
