"""Small reference networks in plain ``torch.nn``: what the recipes and the benchmarks train.

They use modules only (no functional layers), so that every one of them can be converted.
"""

from mho.models.airbench import airbench
from mho.models.build import MODELS, build, check_model
from mho.models.lenet import lenet
from mho.models.mlp import mlp
from mho.models.resnet import resnet20

__all__ = ["MODELS", "airbench", "build", "check_model", "lenet", "mlp", "resnet20"]
