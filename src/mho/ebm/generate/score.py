"""One table row: how a set of generated images stands beside real ones."""

from dataclasses import asdict, dataclass
from typing import Any, final

from torch import Tensor

from mho.ebm.generate.features import Judge
from mho.ebm.generate.metrics import Nearest, frechet_distance, nearest_training, precision_recall
from mho.errors import InputError


@final
@dataclass(frozen=True)
class Score:
    """``frechet``: distance to real test images; ``precision``, ``recall``; ``nearest`` training image; ``images``."""

    frechet: float
    precision: float
    recall: float
    nearest: Nearest
    images: int

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@final
@dataclass(frozen=True, eq=False)
class Reference:
    """Real images to compare with: ``features`` of test images, ``training`` [M, P] for the nearest neighbours."""

    judge: Judge
    features: Tensor
    training: Tensor

    @staticmethod
    def of(judge: Judge, test: Tensor, training: Tensor) -> "Reference":
        """From binary test and training images."""
        return Reference(judge, judge.features(test), training)

    def score(self, images: Tensor) -> Score:
        """The row of ``images`` [N, P]. Precision and recall use as many of the real images as are given.

        Raises :class:`InputError` for fewer than 16 images, of which no covariance is worth its name.
        """
        if len(images) < 16:
            raise InputError(f"score: {len(images)} images. Fix: 16 or more; 1,000 for figures to be compared.")
        made = self.judge.features(images)
        equal = min(len(made), len(self.features))
        precision, recall = precision_recall(self.features[:equal], made[:equal])
        nearest = nearest_training(images, self.training)
        return Score(frechet_distance(self.features, made), precision, recall, nearest, len(images))
