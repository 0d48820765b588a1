"""A recipe's table [train.loss] is the physics-informed loss of the same numbers."""

import pytest
import torch
from small_networks import NOISY, calibrated, mlp
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import mho
from mho.errors import RecipeError, TrainingError
from mho.objectives import Teacher
from mho.train import LossSettings, TrainSettings, dump_recipe, parse_recipe

TEXT = """
name = "with-terms"
[train]
epochs = 2
[train.loss]
margin_noise = 0.03
range_filling = 1.0
"""


def _data() -> DataLoader:
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(32, 6), torch.arange(32) % 3), batch_size=8)


def _trained(**given) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = calibrated(mlp(), NOISY, torch.randn(5, 6))
    mho.fit(model, _data(), seed=4, **given)
    return model.state_dict()


def test_the_table_is_the_loss() -> None:
    recipe = parse_recipe(TEXT)
    by_table = _trained(recipe=recipe)
    loss = mho.PhysicsInformedLoss(label_smoothing=0.1, margin_noise=0.03, range_filling=1.0)
    by_hand = _trained(recipe=recipe.train.model_copy(update={"loss": None}), loss=loss)
    without = _trained(recipe=recipe.train.model_copy(update={"loss": None}))
    assert all(torch.equal(by_table[k], by_hand[k]) for k in by_table)
    assert not all(torch.equal(by_table[k], without[k]) for k in by_table)


def test_the_table_survives_writing_and_baselines_do_not_have_it() -> None:
    recipe = parse_recipe(TEXT)
    assert parse_recipe(dump_recipe(recipe)) == recipe
    assert recipe.train.loss == LossSettings(margin_noise=0.03, range_filling=1.0)
    assert recipe.train.for_digital().loss is None
    assert recipe.train.for_hardware().loss == recipe.train.loss


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("margin_noise", "margin_nois"), "margin_noise"),
        (("0.03", "-0.03"), "train.loss.margin_noise"),
    ],
)
def test_a_table_that_cannot_be_is_refused(change: tuple[str, str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(TEXT.replace(*change))


def test_terms_and_teacher_together_are_the_sum_of_both() -> None:
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    teacher, model = mlp(), mlp()
    without = mho.PhysicsInformedLoss(power=0.0).on_model(model, x, y)
    taught = mho.PhysicsInformedLoss(teacher=Teacher(teacher, 0.25, 3.0)).on_model(model, x, y)
    aim, seen = (torch.log_softmax(net(x) / 3.0, -1) for net in (teacher, model))
    divergence = 9.0 * (aim.exp() * (aim - seen)).sum(-1).mean()
    torch.testing.assert_close(taught, 0.75 * without + 0.25 * divergence)
    analog = calibrated(mlp(), NOISY, x)
    terms = mho.PhysicsInformedLoss(range_filling=1.0, teacher=Teacher(teacher, 0.25, 3.0)).terms(analog.eval(), x, y)
    assert set(terms) == {"task", "range_filling"}


def test_a_recipe_with_terms_listens_to_its_teacher() -> None:
    recipe = parse_recipe(TEXT.replace("epochs = 2", "epochs = 2\ndistill = 0.5"))
    taught = _trained(recipe=recipe, teacher=mlp())
    alone = _trained(recipe=parse_recipe(TEXT))
    assert not all(torch.equal(taught[k], alone[k]) for k in taught)


@pytest.mark.parametrize(("share", "temperature"), [(-0.1, 2.0), (1.1, 2.0), (0.5, 0.0), (0.5, float("nan"))])
def test_an_impossible_teacher_is_refused(share: float, temperature: float) -> None:
    with pytest.raises(RecipeError, match="Teacher: share"):
        Teacher(mlp(), share, temperature)


def test_two_losses_are_one_too_many() -> None:
    settings = TrainSettings(epochs=1, loss=LossSettings(power=1.0))
    with pytest.raises(TrainingError, match=r"one of the two"):
        _trained(recipe=settings, loss=torch.nn.CrossEntropyLoss())
