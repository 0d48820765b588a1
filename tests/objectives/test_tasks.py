"""Task losses by name and the class margin."""

import pytest
import torch
import torch.nn.functional as F

from mho.errors import InputError
from mho.objectives.tasks import class_margin, cross_entropy, half_squared_error, mean_squared_error


def _logits() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return 3 * torch.randn(7, 5, generator=g, dtype=torch.float64), torch.randint(5, (7,), generator=g)


def test_cross_entropy_is_the_softplus_of_the_negative_margin() -> None:
    z, y = _logits()
    torch.testing.assert_close(F.softplus(-class_margin(z, y)).mean(), cross_entropy(z, y))


def test_margin_of_two_classes_is_their_difference() -> None:
    z, y = _logits()
    pair, own = z[:, :2], y % 2
    difference = pair.gather(1, own[:, None]) - pair.gather(1, 1 - own[:, None])
    torch.testing.assert_close(class_margin(pair, own), difference.squeeze(1))


def test_margin_is_between_the_hard_one_and_its_bound() -> None:
    z, y = _logits()
    hard = z.gather(1, y[:, None]).squeeze(1) - z.scatter(1, y[:, None], -torch.inf).amax(1)
    gap = hard - class_margin(z, y)
    assert bool((gap >= 0).all() & (gap <= torch.log(torch.tensor(4.0))).all())


def test_margin_has_first_and_second_derivatives() -> None:
    z, y = _logits()
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: class_margin(a, y), z)
    assert torch.autograd.gradgradcheck(lambda a: class_margin(a, y), z)


def test_label_smoothing_is_torchs() -> None:
    z, y = _logits()
    torch.testing.assert_close(cross_entropy(z, y, 0.1), F.cross_entropy(z, y, label_smoothing=0.1))
    assert cross_entropy(z, y, 0.1) != cross_entropy(z, y)


def test_squared_errors_agree_with_torch_and_take_classes_as_one_hot() -> None:
    z, y = _logits()
    wanted = F.one_hot(y, 5).double()
    torch.testing.assert_close(mean_squared_error(z, y), F.mse_loss(z, wanted))
    torch.testing.assert_close(half_squared_error(z, wanted), 0.5 * (z - wanted).square().sum(1).mean())


@pytest.mark.parametrize("loss", [mean_squared_error, half_squared_error])
def test_squared_error_does_not_broadcast(loss) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"outputs of shape \(4, 1\), targets of \(4,\).*Fix"):
        loss(torch.zeros(4, 1), torch.zeros(4))


@pytest.mark.parametrize(
    ("outputs", "target"),
    [
        (torch.zeros(3, 1), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(3, 4), torch.zeros(3)),
        (torch.zeros(3, 4), torch.zeros(2, dtype=torch.long)),
        (torch.zeros(3, 4, 2), torch.zeros(3, dtype=torch.long)),
    ],
)
def test_margin_of_something_else_is_refused(outputs: torch.Tensor, target: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"no classification. Fix: logits \[batch, classes >= 2\]"):
        class_margin(outputs, target)
