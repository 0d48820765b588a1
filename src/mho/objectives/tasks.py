"""What the network is asked to do: the task losses that go by name, and the class margin."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mho.errors import InputError


def cross_entropy(outputs: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy of logits [N, C], nat. ``target``: classes [N] or probabilities [N, C]."""
    return F.cross_entropy(outputs, target, label_smoothing=label_smoothing)


def mean_squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean of (f - y)^2 over samples and outputs. Integer classes [N] stand for their one-hot vectors."""
    return (outputs - _like_outputs(outputs, target)).square().mean()


def half_squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    """1/N sum_n 1/2 sum_o (f_no - y_no)^2: summed over outputs, mean over samples."""
    error2 = (outputs - _like_outputs(outputs, target)).square()
    return 0.5 * error2.sum() / max(len(outputs), 1)


def _like_outputs(outputs: Tensor, target: Tensor) -> Tensor:
    if outputs.dim() == 2 and target.dim() == 1 and not target.dtype.is_floating_point:
        return F.one_hot(target.long(), outputs.shape[1]).to(outputs)
    if outputs.shape != target.shape:
        raise InputError(
            f"squared error: outputs of shape {tuple(outputs.shape)}, targets of {tuple(target.shape)}. "
            "Fix: targets of the outputs' shape, or integer classes [batch]."
        )
    return target.to(outputs)


def class_margin(logits: Tensor, target: Tensor) -> Tensor:
    """m_n = f_y - ln sum_{j != y} exp(f_j): [N] from logits [N, C >= 2] and classes [N]; unit: logit.

    The smooth form of "right answer minus the best of the others": between that and ln(C - 1) less.
    Cross entropy is ln(1 + exp(-m)), so m > 0 wherever the network is surer than 1/2.
    Raises :class:`InputError` for anything that is not a classification.
    """
    fits = logits.dim() == 2 and logits.shape[1] >= 2 and target.shape == logits.shape[:1]
    if not fits or target.dtype.is_floating_point or target.dtype == torch.bool:
        raise InputError(
            f"class margin: outputs of shape {tuple(logits.shape)} and {target.dtype} targets of shape "
            f"{tuple(target.shape)} are no classification. Fix: logits [batch, classes >= 2] and integer classes "
            "[batch]; else jacobian_estimator = 'projection' or 'exact', and margin_noise = 0."
        )
    own = target.long().unsqueeze(1)
    others = logits.scatter(1, own, -torch.inf)
    return logits.gather(1, own).squeeze(1) - torch.logsumexp(others, 1)


__all__ = ["class_margin", "cross_entropy", "half_squared_error", "mean_squared_error"]
