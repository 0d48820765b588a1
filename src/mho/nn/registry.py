"""Which torch modules go on analog hardware, which stay digital by rule, and which are refused.

Keyed by the type object itself: two classes of one name are two classes.
"""

from collections.abc import Callable

from torch import Tensor, nn

from mho.nn.attention import MultiheadAttention
from mho.nn.conv import Conv
from mho.nn.linear import Linear
from mho.nn.policy import Policy
from mho.nn.recurrent import Recurrent, RecurrentCell
from mho.nn.site import AnalogLayer, Substrate

Builder = Callable[[nn.Module, str, Policy, Substrate], AnalogLayer]

ANALOG: dict[type[nn.Module], Builder] = {
    nn.Linear: Linear,  # type: ignore[dict-item]  # each builder takes its own module type
    nn.Conv1d: Conv,  # type: ignore[dict-item]
    nn.Conv2d: Conv,  # type: ignore[dict-item]
    nn.Conv3d: Conv,  # type: ignore[dict-item]
    nn.LSTM: Recurrent,  # type: ignore[dict-item]
    nn.GRU: Recurrent,  # type: ignore[dict-item]
    nn.RNN: Recurrent,  # type: ignore[dict-item]
    nn.LSTMCell: RecurrentCell,  # type: ignore[dict-item]
    nn.GRUCell: RecurrentCell,  # type: ignore[dict-item]
    nn.RNNCell: RecurrentCell,  # type: ignore[dict-item]
    nn.MultiheadAttention: MultiheadAttention,  # type: ignore[dict-item]
}

DIGITAL: dict[type[nn.Module], str] = {
    nn.BatchNorm1d: "normalisation: a scale and shift a channel, digital",
    nn.BatchNorm2d: "normalisation: a scale and shift a channel, digital",
    nn.BatchNorm3d: "normalisation: a scale and shift a channel, digital",
    nn.SyncBatchNorm: "normalisation: a scale and shift a channel, digital",
    nn.LayerNorm: "normalisation, digital",
    nn.GroupNorm: "normalisation, digital",
    nn.InstanceNorm1d: "normalisation, digital",
    nn.InstanceNorm2d: "normalisation, digital",
    nn.InstanceNorm3d: "normalisation, digital",
    nn.RMSNorm: "normalisation, digital",
    nn.Embedding: "table look-up, no product",
    nn.EmbeddingBag: "table look-up, no product",
    nn.PReLU: "activation, digital",
}

REFUSED: dict[type[nn.Module], tuple[str, str]] = {
    nn.ConvTranspose1d: (
        "a transposed convolution reads its array by columns and overlaps its outputs; not mapped",
        "nn.Upsample followed by nn.Conv1d",
    ),
    nn.ConvTranspose2d: (
        "a transposed convolution reads its array by columns and overlaps its outputs; not mapped",
        "nn.Upsample followed by nn.Conv2d",
    ),
    nn.ConvTranspose3d: (
        "a transposed convolution reads its array by columns and overlaps its outputs; not mapped",
        "nn.Upsample followed by nn.Conv3d",
    ),
    nn.Bilinear: ("a product of two inputs with a three-way weight is no matrix-vector product", "keep it digital"),
    nn.LazyLinear: ("its shape is not known yet", "run one batch through the network before converting it"),
}


def refusal(module: nn.Module) -> tuple[str, str] | None:
    """(reason, way out) where a module of a mapped type cannot be put on hardware as it is."""
    known = REFUSED.get(type(module))
    if known is not None:
        return known
    if isinstance(module, nn.modules.lazy.LazyModuleMixin):
        return REFUSED[nn.LazyLinear]
    if isinstance(module, nn.RNNBase) and module.proj_size:
        return "an LSTM with a projection (proj_size) is not mapped", "proj_size=0 and an nn.Linear after it"
    if isinstance(module, nn.RNNBase) and not module.bias and type(module) not in ANALOG:
        return "an unknown recurrent layer", "nn.LSTM, nn.GRU or nn.RNN"
    if isinstance(module, tuple(ANALOG)) and _computed_weight(module):
        return (
            "its weight is computed from other parameters (a parametrisation, weight norm or pruning)",
            "fold it into the weight first (torch.nn.utils.parametrize.remove_parametrizations, prune.remove)",
        )
    if isinstance(module, nn.MultiheadAttention) and module.add_zero_attn:
        return "add_zero_attn is not mapped", "add_zero_attn=False"
    return None


def _computed_weight(module: nn.Module) -> bool:
    """Whether a name that a mapped type keeps among its parameters is no parameter of this module."""
    names = [
        n for n in vars(module) if n.startswith(("weight", "in_proj_weight")) and isinstance(vars(module)[n], Tensor)
    ]
    return bool(names) or nn.utils.parametrize.is_parametrized(module)


def analog_builder(module: nn.Module) -> Builder | None:
    """The builder of a module, also of a subclass that inherits its parent's forward unchanged."""
    for known, builder in ANALOG.items():
        if type(module) is known or (isinstance(module, known) and type(module).forward is known.forward):
            return builder
    return None


def mapped_parent(module: nn.Module) -> type[nn.Module] | None:
    """The mapped type whose forward a subclass overrides, if it is one."""
    for known in (*ANALOG, *REFUSED):
        if isinstance(module, known) and type(module) is not known:
            return known
    return None
