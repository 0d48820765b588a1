"""Fully connected layer on crossbars."""

from typing import final

from torch import Tensor, nn

from mho.crossbar.ops import LinearOp
from mho.nn.checks import check_input
from mho.nn.policy import Policy, parameter_name
from mho.nn.site import AnalogLayer, Site, Substrate, attach, product
from mho.nn.surrogate import hardware_text


@final
class Linear(AnalogLayer):
    """y = x W^T + b with W [out_features, in_features] in conductances and b digital.

    Takes and keeps the parameters of an ``nn.Linear``; x: [..., in_features].
    """

    def __init__(self, digital: nn.Linear, name: str, policy: Policy, substrate: Substrate) -> None:
        super().__init__()
        self.in_features, self.out_features = digital.in_features, digital.out_features
        self.weight, self.bias = digital.weight, digital.bias
        self.sites: dict[str, Site] = {}
        self.substrate = substrate
        attach(
            self, "weight", policy.site(parameter_name(name, "weight"), LinearOp(self.in_features, self.out_features))
        )
        self.train(digital.training)

    def forward(self, x: Tensor) -> Tensor:
        check_input(self.sites["weight"].name, x, self.weight, self.in_features, -1, ())
        return product(self, "weight", x, self.bias)

    def to_digital(self) -> nn.Linear:
        digital = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        digital.weight, digital.bias = self.weight, self.bias
        return digital.train(self.training)

    def extra_repr(self) -> str:
        hw = self.sites["weight"].hw
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {hardware_text(hw)}"
