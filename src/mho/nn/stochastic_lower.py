"""How the inner layer of a stochastic residual lowers to one operation of a crossbar."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from mho.crossbar.ops import ConvOp, LinearOp, Op
from mho.errors import ConversionError
from mho.nn.conv import Conv
from mho.nn.linear import Linear
from mho.nn.registry import refusal
from mho.nn.site import AnalogLayer


@dataclass(frozen=True)
class Lowering:
    """Which operation an inner layer is, and what is padded in front of it (as ``F.pad`` takes it)."""

    op: Op
    pad: tuple[int, ...] = ()
    mode: str = "constant"

    def padded(self, x: Tensor) -> Tensor:
        """The input as the operation takes it."""
        return F.pad(x, self.pad, mode=self.mode) if self.pad else x

    @property
    def dims(self) -> tuple[int, ...]:
        """Admissible numbers of dimensions of the input; empty for any."""
        return (self.op.ndim + 1, self.op.ndim + 2) if isinstance(self.op, ConvOp) else ()

    @property
    def inputs(self) -> int:
        """Input features or channels."""
        return self.op.in_channels if isinstance(self.op, ConvOp) else self.op.in_features

    @property
    def outputs(self) -> int:
        """Output features or channels."""
        return self.op.out_channels if isinstance(self.op, ConvOp) else self.op.out_features

    def feature_dim(self, x: Tensor) -> int:
        """Where the features of ``x`` stand."""
        if isinstance(self.op, LinearOp):
            return -1
        return -self.op.ndim - 1 if x.dim() > self.op.ndim else 0


def lower(inner: nn.Module) -> Lowering:
    """The operation of ``inner``: nn.Linear, nn.Conv1d to 3d, or what mho.convert made of one.

    Raises :class:`ConversionError` for any other layer, and for one whose weight is computed.
    """
    if isinstance(inner, (Linear, Conv)):
        inner = inner.to_digital()
    reason = refusal(inner)
    if reason is not None:
        raise ConversionError(f"StochasticResidual: {type(inner).__name__}: {reason[0]}. Way out: {reason[1]}.")
    if type(inner) is nn.Linear:
        return Lowering(LinearOp(inner.in_features, inner.out_features))
    if type(inner) in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        assert isinstance(inner, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        return _lower_conv(inner)
    kind = type(inner).__name__
    more = " An analog layer of several matrices is not taken." if isinstance(inner, AnalogLayer) else ""
    raise ConversionError(
        f"StochasticResidual: inner is a {kind}, and its noise is known for one matrix product only.{more} Way out: an "
        "nn.Linear or nn.Conv1d/2d/3d; put everything else into activation= or skip=."
    )


def _lower_conv(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Lowering:
    # (before, after) of each dimension, last dimension first, as F.pad takes them.
    pad = tuple(conv._reversed_padding_repeated_twice)
    symmetric = all(a == b for a, b in zip(pad[::2], pad[1::2], strict=True))
    first = conv.padding_mode != "zeros" or not symmetric
    count = len(conv.kernel_size)
    op = ConvOp(
        conv.in_channels,
        conv.out_channels,
        tuple(conv.kernel_size),
        tuple(conv.stride),
        (0,) * count if first else tuple(reversed(pad[::2])),
        tuple(conv.dilation),
        conv.groups,
    )
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return Lowering(op, pad if first else (), mode)
