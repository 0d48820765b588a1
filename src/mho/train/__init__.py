"""Recipes, the training loop and checkpoints."""

from mho.train.achievable import AchievableUpdates
from mho.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mho.train.history import EpochRecord, History
from mho.train.loop import fit
from mho.train.optimizer import make_optimizer
from mho.train.recipe import builtin_recipes, dump_recipe, load_recipe, parse_recipe
from mho.train.settings import DataSettings, EvaluateSettings, LossSettings, NetworkSettings, Recipe, TrainSettings
from mho.train.step import ModelLoss

__all__ = [
    "AchievableUpdates",
    "Checkpoint",
    "DataSettings",
    "EpochRecord",
    "EvaluateSettings",
    "History",
    "LossSettings",
    "ModelLoss",
    "NetworkSettings",
    "Recipe",
    "TrainSettings",
    "builtin_recipes",
    "dump_recipe",
    "fit",
    "load_checkpoint",
    "load_recipe",
    "make_optimizer",
    "parse_recipe",
    "save_checkpoint",
]
