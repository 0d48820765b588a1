"""Convolutions on crossbars: one row an input channel and kernel position, read once an output position."""

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from mho.crossbar.ops import ConvOp
from mho.nn.checks import check_input
from mho.nn.policy import Policy, parameter_name
from mho.nn.site import AnalogLayer, Site, Substrate, attach, product
from mho.nn.surrogate import hardware_text

AnyConv = nn.Conv1d | nn.Conv2d | nn.Conv3d
_DIGITAL: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@final
class Conv(AnalogLayer):
    """Convolution in 1, 2 or 3 dimensions with its kernel in conductances and its bias digital.

    Strides, dilation, groups and all padding modes of torch. Padded positions drive the rows as any
    other input does (zeros drive nothing). x: [(batch,) in_channels, *positions].
    """

    def __init__(self, digital: AnyConv, name: str, policy: Policy, substrate: Substrate) -> None:
        super().__init__()
        self.ndim = len(digital.kernel_size)
        self.weight, self.bias = digital.weight, digital.bias
        self.in_channels, self.out_channels = digital.in_channels, digital.out_channels
        self.kernel_size, self.stride, self.dilation = digital.kernel_size, digital.stride, digital.dilation
        self.padding, self.padding_mode, self.groups = digital.padding, digital.padding_mode, digital.groups
        # (before, after) of each dimension, last dimension first, as F.pad takes them.
        self._pad = tuple(digital._reversed_padding_repeated_twice)
        symmetric = all(a == b for a, b in zip(self._pad[::2], self._pad[1::2], strict=True))
        self._pad_first = self.padding_mode != "zeros" or not symmetric
        padding = (0,) * self.ndim if self._pad_first else tuple(reversed(self._pad[::2]))
        op = ConvOp(
            self.in_channels,
            self.out_channels,
            tuple(self.kernel_size),
            tuple(self.stride),
            padding,
            tuple(self.dilation),
            self.groups,
        )
        self.sites: dict[str, Site] = {}
        self.substrate = substrate
        attach(self, "weight", policy.site(parameter_name(name, "weight"), op))
        self.train(digital.training)

    def forward(self, x: Tensor) -> Tensor:
        name = self.sites["weight"].name
        check_input(name, x, self.weight, self.in_channels, -self.ndim - 1 if x.dim() > self.ndim else 0,
                    (self.ndim + 1, self.ndim + 2))  # fmt: skip
        if self._pad_first:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self._pad, mode=mode)
        return product(self, "weight", x, self.bias)

    def to_digital(self) -> AnyConv:
        digital = _DIGITAL[self.ndim](
            self.in_channels,
            self.out_channels,
            self.kernel_size,  # type: ignore[arg-type]  # a tuple of ndim integers
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            self.groups,
            bias=False,
            padding_mode=self.padding_mode,
            device="meta",
        )
        digital.weight, digital.bias = self.weight, self.bias
        return digital.train(self.training)

    def extra_repr(self) -> str:
        kernel = "x".join(map(str, self.kernel_size))
        return f"{self.in_channels}, {self.out_channels}, kernel={kernel}, {hardware_text(self.sites['weight'].hw)}"
