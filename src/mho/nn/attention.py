"""Multi-head attention: its projections on crossbars, the attention itself (data times data) digital."""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mho.crossbar.array import Array
from mho.crossbar.ops import LinearOp
from mho.errors import InputError
from mho.nn.checks import check_input
from mho.nn.policy import Policy, parameter_name
from mho.nn.site import AnalogLayer, Site, Substrate, attach, product


@final
class MultiheadAttention(AnalogLayer):
    """``nn.MultiheadAttention`` with analog in- and out-projections, same keys, arguments and results.

    A packed in-projection (one embedding size) is one crossbar; separate ones are three. Inside
    ``nn.TransformerEncoderLayer`` torch's fused fast path, which would read the weights and compute
    digitally, is off: it requires ``_qkv_same_embed_dim``.
    """

    # Read by nn.TransformerEncoderLayer and nn.TransformerEncoder to choose their fast path.
    _qkv_same_embed_dim = False

    def __init__(self, digital: nn.MultiheadAttention, name: str, policy: Policy, substrate: Substrate) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = digital.embed_dim, digital.num_heads, digital.head_dim
        self.kdim, self.vdim = digital.kdim, digital.vdim
        self.dropout, self.batch_first = digital.dropout, digital.batch_first
        self.packed = digital._qkv_same_embed_dim
        self.sites: dict[str, Site] = {}
        self.substrate = substrate
        self.name = name
        self.in_proj_weight, self.in_proj_bias = digital.in_proj_weight, digital.in_proj_bias
        self.q_proj_weight, self.k_proj_weight = digital.q_proj_weight, digital.k_proj_weight
        self.v_proj_weight = digital.v_proj_weight
        self.bias_k, self.bias_v = digital.bias_k, digital.bias_v
        keys = ("in_proj_weight",) if self.packed else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        for key in keys:
            weight = getattr(self, key)
            attach(self, key, policy.site(parameter_name(name, key), LinearOp(weight.shape[1], weight.shape[0])))
        # The out-projection is a layer of its own, as its keys are.
        self.out_proj = Projection(digital.out_proj, parameter_name(name, "out_proj"), policy, substrate)
        self.train(digital.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        weight = self.in_proj_weight if self.packed else self.q_proj_weight
        assert weight is not None
        for what, x, width in (("query", query, self.embed_dim), ("key", key, self.kdim), ("value", value, self.vdim)):
            check_input(f"{self.name} ({what})", x, weight, width, -1, (2, 3))
        twin = self.digital_twin()
        if twin is not None:
            options = key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            return twin(query, key, value, *options)  # type: ignore[no-any-return]
        batched = query.dim() == 3
        if self.batch_first and batched:
            # One tensor stays one tensor, so that self-attention is still one product.
            same_key, same_value = key is query, value is key
            query = query.transpose(0, 1)
            key = query if same_key else key.transpose(0, 1)
            value = key if same_value else value.transpose(0, 1)
        if not batched:
            same_key, same_value = key is query, value is key
            query = query.unsqueeze(1)
            key = query if same_key else key.unsqueeze(1)
            value = key if same_value else value.unsqueeze(1)
        q, k, v = self._project(query, key, value)
        out, weights = self._attend(q, k, v, key_padding_mask, need_weights, attn_mask, is_causal, batched)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return out.squeeze(1), None if weights is None else weights.squeeze(0)
        return (out.transpose(0, 1) if self.batch_first else out), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.packed:
            biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
            names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
            q, k, v = (product(self, n, x, b) for n, x, b in zip(names, (query, key, value), biases, strict=True))
            return q, k, v
        if query is key and key is value:
            q, k, v = product(self, "in_proj_weight", query, self.in_proj_bias).chunk(3, -1)
            return q, k, v
        # All three thirds of the crossbar answer each vector that is driven in; those not asked for
        # are left out.
        size = self.embed_dim
        parts, programmed = [], dict[str, Array]()
        for index, x in enumerate((query, key, value)):
            answer = product(self, "in_proj_weight", x, self.in_proj_bias, programmed)
            parts.append(answer[..., index * size : (index + 1) * size])
        return parts[0], parts[1], parts[2]

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        padding: Tensor | None,
        need_weights: bool,
        mask: Tensor | None,
        is_causal: bool,
        batched: bool,
    ) -> tuple[Tensor, Tensor | None]:
        length, batch, _ = q.shape
        heads, size = self.num_heads, self.head_dim
        if is_causal and mask is None:
            raise InputError(f"{self.name}: is_causal needs attn_mask, as in torch. Way out: give the causal mask.")
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.repeat(1, batch, 1)])
            v = torch.cat([v, self.bias_v.repeat(1, batch, 1)])
            mask = None if mask is None else F.pad(mask, (0, 1))
            padding = None if padding is None else F.pad(padding, (0, 1))
        source = k.shape[0]
        q, k, v = (
            t.contiguous().view(t.shape[0], batch * heads, size).transpose(0, 1).view(batch, heads, t.shape[0], size)
            for t in (q, k, v)
        )
        bias = _float_mask(mask, q.dtype)
        if bias is not None and bias.dim() == 3:
            bias = bias.view(-1 if batched else 1, heads, length, source)
        if padding is not None:
            hidden = _float_mask(padding, q.dtype)
            assert hidden is not None
            hidden = hidden.view(batch, 1, 1, source)
            bias = hidden if bias is None else bias + hidden
        drop = self.dropout if self.training else 0.0
        if not need_weights:
            attended, weights = F.scaled_dot_product_attention(q, k, v, bias, drop), None
        else:
            scores = (q * (1.0 / size) ** 0.5) @ k.transpose(-2, -1)
            weights = torch.softmax(scores if bias is None else scores + bias, -1)
            weights = F.dropout(weights, drop) if drop else weights
            attended = weights @ v
        flat = attended.permute(2, 0, 1, 3).reshape(length, batch, self.embed_dim)
        return self.out_proj(flat), weights

    def to_digital(self) -> nn.MultiheadAttention:
        digital = nn.MultiheadAttention(
            self.embed_dim, self.num_heads, self.dropout, bias=self.in_proj_bias is not None,
            add_bias_kv=self.bias_k is not None, kdim=self.kdim, vdim=self.vdim, batch_first=self.batch_first,
            device="meta",
        )  # fmt: skip
        for key in list(digital._parameters):
            setattr(digital, key, getattr(self, key))
        digital.out_proj = self.out_proj.to_digital()
        return digital.train(self.training)

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, heads={self.num_heads}"


@final
class Projection(AnalogLayer):
    """The out-projection of attention: y = x W^T + b."""

    def __init__(self, digital: nn.Linear, name: str, policy: Policy, substrate: Substrate) -> None:
        super().__init__()
        self.weight, self.bias = digital.weight, digital.bias
        self.sites: dict[str, Site] = {}
        self.substrate = substrate
        op = LinearOp(digital.in_features, digital.out_features)
        attach(self, "weight", policy.site(parameter_name(name, "weight"), op))

    def forward(self, x: Tensor) -> Tensor:
        return product(self, "weight", x, self.bias)

    def to_digital(self) -> nn.modules.linear.NonDynamicallyQuantizableLinear:
        op = self.sites["weight"].op
        assert isinstance(op, LinearOp)
        digital = nn.modules.linear.NonDynamicallyQuantizableLinear(
            op.in_features, op.out_features, bias=False, device="meta"
        )
        digital.weight, digital.bias = self.weight, self.bias
        return digital.train(self.training)


def _float_mask(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A boolean mask (True: hidden) as an additive one."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))


def forbid_nested_tensors(model: nn.Module) -> None:
    """Keep ``nn.TransformerEncoder`` from packing padded batches, which only its fused path can read.

    torch decides that when the encoder is made, before its layers were converted.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(isinstance(m, AnalogLayer) for m in module.modules()):
            module.used_nested_tensor = module.use_nested_tensor  # type: ignore[assignment]  # a flag
            module.use_nested_tensor = False


def allow_nested_tensors(model: nn.Module) -> None:
    """Undo :func:`forbid_nested_tensors`."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and hasattr(module, "used_nested_tensor"):
            module.use_nested_tensor = module.used_nested_tensor  # type: ignore[assignment]
            del module.used_nested_tensor
