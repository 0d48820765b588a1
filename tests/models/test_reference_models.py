"""The reference networks: shapes, parameter counts as documented, errors."""

import pytest
import torch

from mho.errors import RecipeError
from mho.models import MODELS, build

CASES = {
    "mlp": (535_818, (1, 28, 28)),
    "lenet": (42_106, (1, 28, 28)),
    "resnet20": (269_722, (3, 32, 32)),
    "airbench": (295_106, (3, 32, 32)),
}


@pytest.mark.parametrize("name", MODELS)
def test_count_and_shape(name: str) -> None:
    count, shape = CASES[name]
    net = build(name)
    assert sum(p.numel() for p in net.parameters()) == count
    assert f"{count:,} parameters" in " ".join((MODELS[name].__doc__ or "").split())
    out = net(torch.randn(3, *shape))
    assert out.shape == (3, 10)
    out.sum().backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


def test_arguments_change_the_network() -> None:
    assert build("resnet20", width=8, in_channels=1, classes=200)(torch.randn(2, 1, 64, 64)).shape == (2, 200)
    assert build("lenet", width=4, size=32, in_channels=3)(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert build("mlp", sizes=[16, 8, 3])(torch.randn(2, 4, 4)).shape == (2, 3)
    assert build("airbench", widths=[8, 8])(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    strided = build("airbench", widths=[8, 8], classes=200, stem_stride=2)
    assert strided(torch.randn(2, 3, 64, 64)).shape == (2, 200)
    assert strided[0](torch.randn(2, 3, 64, 64)).shape == (2, 24, 31, 31)


def test_shortcut_keeps_the_signal() -> None:
    net = build("resnet20").eval()
    block = net[6]
    x = torch.rand(1, 16, 8, 8)
    block.bn2.weight.data.zero_()
    out = block(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("lennet", {}, "lenet"),
        ("lenet", {"widht": 3}, "width"),
        ("lenet", {"width": 0}, "positive integer"),
        ("lenet", {"width": 2.5}, "positive integer"),
        ("mlp", {"sizes": 784}, "list"),
        ("mlp", {"sizes": [784, -1]}, "positive"),
    ],
)
def test_bad_arguments_are_named(name: str, args: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        build(name, **args)
