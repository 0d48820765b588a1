"""How near a set of generated images is to a set of real ones; all distances in the features of one classifier.

None of these numbers compares with published ones, whose features are those of another network.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor

from mho.errors import InputError

_CHUNK = 1024


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two sets of features [N, D], float64.

    The trace of the root is the sum of the roots of the eigenvalues of C_a^(1/2) C_b C_a^(1/2), which is symmetric, so
    that a singular covariance needs no ridge. Source: Heusel et al., arXiv:1706.08500. Raises :class:`InputError` for
    fewer than two rows, other widths or values that are not finite.
    """
    _features("frechet_distance", a, b)
    x, y = a.double().numpy(), b.double().numpy()
    covariances = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    values, vectors = eigh(covariances[0])
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    product = eigh(root @ covariances[1] @ root, eigvals_only=True)
    trace = np.trace(covariances[0]) + np.trace(covariances[1]) - 2.0 * np.sqrt(product.clip(min=0.0)).sum()
    return float(np.square(x.mean(0) - y.mean(0)).sum() + trace)


def precision_recall(real: Tensor, made: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """(precision, recall) of Kynkaanniemi et al., arXiv:1904.06991, in features [N, D].

    Each set is a union of balls that reach from a point to its k-th nearest neighbour in its own set. Precision: the
    share of ``made`` in the set of ``real``; recall: the share of ``real`` in the set of ``made``. They depend on the
    numbers of images: compare sets of equal size. Raises :class:`InputError` for no more than k rows.
    """
    _features("precision_recall", real, made)
    if neighbours < 1 or min(len(real), len(made)) <= neighbours:
        raise InputError(
            f"precision_recall: neighbours = {neighbours} for {len(real)} real and {len(made)} generated images; needs "
            "1 or more, and more images than that. Fix: more images."
        )
    return _covered(made, real, neighbours), _covered(real, made, neighbours)


def _covered(points: Tensor, centres: Tensor, neighbours: int) -> float:
    radii = torch.cat(
        [
            torch.cdist(part, centres).kthvalue(neighbours + 1, dim=1).values  # the first is the point itself
            for part in centres.split(_CHUNK)
        ]
    )
    inside = [(torch.cdist(part, centres) <= radii).any(1) for part in points.split(_CHUNK)]
    return float(torch.cat(inside).float().mean())


@dataclass(frozen=True)
class Nearest:
    """Pixels that differ from the nearest training image, over a set: median, 5th percentile, share of copies."""

    median: float
    p5: float
    copies: float


def nearest_training(images: Tensor, training: Tensor) -> Nearest:
    """Hamming distance of binary ``images`` [N, P] to their nearest of ``training`` [M, P], in pixels.

    A generator that learns by heart lies nearer than held-out real images do: say both. Values are -1 and +1.
    """
    if images.ndim != 2 or training.ndim != 2 or images.shape[1] != training.shape[1] or not len(training):
        raise InputError(
            f"nearest_training: images {list(images.shape)} and training {list(training.shape)} must be two lists of "
            "equally many pixels. Fix: flatten both."
        )
    pixels = images.shape[1]
    found = []
    for part in images.split(_CHUNK):
        best = torch.full((len(part),), float("-inf"))
        for block in training.split(8 * _CHUNK):
            best = torch.maximum(best, (part @ block.t()).max(1).values)
        found.append((pixels - best) / 2)
    distance = torch.cat(found)
    return Nearest(
        float(distance.median()), float(torch.quantile(distance, 0.05)), float((distance == 0).float().mean())
    )


def _features(what: str, a: Tensor, b: Tensor) -> None:
    fits = a.ndim == 2 and b.ndim == 2 and a.shape[1] == b.shape[1] and min(len(a), len(b)) >= 2
    if not fits or not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise InputError(
            f"{what}: features {list(a.shape)} and {list(b.shape)} must be finite [N, D] of equal D, with 2 rows or "
            "more. Fix: give one row an image."
        )
