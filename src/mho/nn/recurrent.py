"""LSTM, GRU and plain recurrent layers and cells: their matrices on crossbars, their gates digital.

The input projection of a whole sequence is one product; the recurrent product is read once a time
step, on the same chip throughout the sequence.
"""

from typing import final

import torch
from torch import Tensor, nn

from mho.crossbar.ops import LinearOp
from mho.errors import InputError
from mho.nn.checks import check_input
from mho.nn.policy import Policy, parameter_name
from mho.nn.site import AnalogLayer, Programmed, Site, Substrate, attach, product

State = tuple[Tensor, ...]
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def advance(mode: str, from_input: Tensor, from_state: Tensor, state: State) -> State:
    """One time step of the digital part. ``from_input`` = W_ih x + b_ih, ``from_state`` = W_hh h + b_hh.

    LSTM (gates i, f, g, o): c' = f c + i g, h' = o tanh(c'). GRU (r, z, n): n = tanh(W x + r (W h)),
    h' = n + z (h - n). RNN: h' = tanh or relu of the sum.
    """
    if mode == "LSTM":
        i, f, g, o = (from_input + from_state).chunk(4, -1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    if mode == "GRU":
        r_x, z_x, n_x = from_input.chunk(3, -1)
        r_h, z_h, n_h = from_state.chunk(3, -1)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + n_h * r)
        return ((state[0] - n) * z + n,)
    total = from_input + from_state
    return (torch.tanh(total) if mode == "RNN_TANH" else torch.relu(total),)


def initial_state(name: str, mode: str, state: Tensor | State | None, x: Tensor, shape: tuple[int, ...]) -> State:
    """The given state as a tuple, zeros without one; :class:`InputError` where it does not fit."""
    kinds = 2 if mode == "LSTM" else 1
    if state is None:
        return (x.new_zeros(shape),) * kinds
    given = (state,) if isinstance(state, Tensor) else tuple(state)
    if len(given) != kinds:
        raise InputError(f"{name}: {len(given)} initial states, {kinds} needed for {mode}.")
    for s in given:
        if s.shape != shape:
            raise InputError(f"{name}: initial state of shape {tuple(s.shape)}, needed {shape}.")
    return given


@final
class Recurrent(AnalogLayer):
    """``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``: several layers, both directions, either batch order."""

    def __init__(self, digital: nn.RNNBase, name: str, policy: Policy, substrate: Substrate) -> None:
        super().__init__()
        self.mode, self.input_size, self.hidden_size = digital.mode, digital.input_size, digital.hidden_size
        self.num_layers, self.bidirectional = digital.num_layers, digital.bidirectional
        self.batch_first, self.dropout, self.bias = digital.batch_first, float(digital.dropout), digital.bias
        self.sites: dict[str, Site] = {}
        self.substrate = substrate
        self.name = name
        for key, parameter in digital.named_parameters(recurse=False):
            self.register_parameter(key, parameter)
        for key in [k for k in self._parameters if k.startswith("weight")]:
            weight = getattr(self, key)
            attach(self, key, policy.site(parameter_name(name, key), LinearOp(weight.shape[1], weight.shape[0])))
        self.train(digital.training)

    def forward(self, x: Tensor, state: Tensor | State | None = None) -> tuple[Tensor, Tensor | State]:
        if not isinstance(x, Tensor):
            raise InputError(
                f"{self.name}: input is a {type(x).__name__}. Way out: pad the sequences into one tensor "
                "(torch.nn.utils.rnn.pad_packed_sequence)."
            )
        check_input(self.name, x, self.weight_ih_l0, self.input_size, -1, (2, 3))
        twin = self.digital_twin()
        if twin is not None:
            return twin(x, state)  # type: ignore[no-any-return]
        batched = x.dim() == 3
        # Time first inside, with a batch of one for a single sequence.
        steps = (x.transpose(0, 1) if self.batch_first else x) if batched else x.unsqueeze(1)
        given = self._initial(state, steps, batched)
        final_states: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(2 if self.bidirectional else 1):
                index = len(final_states)
                hidden, last = self._run(steps, tuple(s[index] for s in given), layer, direction)
                outputs.append(hidden)
                final_states.append(last)
            steps = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            if self.dropout and layer < self.num_layers - 1:
                steps = nn.functional.dropout(steps, self.dropout, self.training)
        stacked = tuple(torch.stack(kind) for kind in zip(*final_states, strict=True))
        if not batched:
            steps, stacked = steps.squeeze(1), tuple(s.squeeze(1) for s in stacked)
        elif self.batch_first:
            steps = steps.transpose(0, 1)
        return steps, stacked if self.mode == "LSTM" else stacked[0]

    def _initial(self, state: Tensor | State | None, steps: Tensor, batched: bool) -> State:
        count = self.num_layers * (2 if self.bidirectional else 1)
        if not batched and state is not None:
            state = state.unsqueeze(1) if isinstance(state, Tensor) else tuple(s.unsqueeze(1) for s in state)
        return initial_state(self.name, self.mode, state, steps, (count, steps.shape[1], self.hidden_size))

    def _run(self, steps: Tensor, state: State, layer: int, direction: int) -> tuple[Tensor, State]:
        end = f"_l{layer}" + ("_reverse" if direction else "")
        b_ih = getattr(self, "bias_ih" + end) if self.bias else None
        b_hh = getattr(self, "bias_hh" + end) if self.bias else None
        projected = product(self, "weight_ih" + end, steps, b_ih)
        programmed: Programmed = {}
        order = range(len(steps) - 1, -1, -1) if direction else range(len(steps))
        hidden: list[Tensor] = [state[0]] * len(steps)
        for t in order:
            state = advance(
                self.mode, projected[t], product(self, "weight_hh" + end, state[0], b_hh, programmed), state
            )
            hidden[t] = state[0]
        return torch.stack(hidden), state

    def to_digital(self) -> nn.RNNBase:
        kind = {"LSTM": nn.LSTM, "GRU": nn.GRU}.get(self.mode, nn.RNN)
        extra = {"nonlinearity": self.mode.removeprefix("RNN_").lower()} if kind is nn.RNN else {}
        digital = kind(
            self.input_size, self.hidden_size, self.num_layers, bias=self.bias, batch_first=self.batch_first,
            dropout=self.dropout, bidirectional=self.bidirectional, device="meta", **extra,
        )  # fmt: skip
        for key in digital._flat_weights_names:
            setattr(digital, key, getattr(self, key))
        return digital.train(self.training)

    def extra_repr(self) -> str:
        return f"{self.mode}, {self.input_size}, {self.hidden_size}, layers={self.num_layers}"


@final
class RecurrentCell(AnalogLayer):
    """``nn.LSTMCell``, ``nn.GRUCell`` or ``nn.RNNCell``."""

    def __init__(self, digital: nn.RNNCellBase, name: str, policy: Policy, substrate: Substrate) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = digital.input_size, digital.hidden_size, digital.bias
        nonlinearity = getattr(digital, "nonlinearity", "tanh")
        by_gates = {4: "LSTM", 3: "GRU", 1: f"RNN_{nonlinearity.upper()}"}
        self.mode = by_gates[digital.weight_hh.shape[0] // self.hidden_size]
        self.sites: dict[str, Site] = {}
        self.substrate = substrate
        self.name = name
        for key, parameter in digital.named_parameters(recurse=False):
            self.register_parameter(key, parameter)
        for key in ("weight_ih", "weight_hh"):
            weight = getattr(self, key)
            attach(self, key, policy.site(parameter_name(name, key), LinearOp(weight.shape[1], weight.shape[0])))
        self.train(digital.training)

    def forward(self, x: Tensor, state: Tensor | State | None = None) -> Tensor | State:
        check_input(self.name, x, self.weight_ih, self.input_size, -1, (1, 2))
        twin = self.digital_twin()
        if twin is not None:
            return twin(x, state)  # type: ignore[no-any-return]
        current = initial_state(self.name, self.mode, state, x, (*x.shape[:-1], self.hidden_size))
        b_ih, b_hh = (self.bias_ih, self.bias_hh) if self.bias else (None, None)
        from_input = product(self, "weight_ih", x, b_ih)
        result = advance(self.mode, from_input, product(self, "weight_hh", current[0], b_hh), current)
        return result if self.mode == "LSTM" else result[0]

    def to_digital(self) -> nn.RNNCellBase:
        kind = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell}.get(self.mode, nn.RNNCell)
        extra = {"nonlinearity": self.mode.removeprefix("RNN_").lower()} if kind is nn.RNNCell else {}
        digital = kind(self.input_size, self.hidden_size, bias=self.bias, device="meta", **extra)
        for key in list(digital._parameters):
            setattr(digital, key, getattr(self, key) if self.bias or "bias" not in key else None)
        return digital.train(self.training)

    def extra_repr(self) -> str:
        return f"{self.mode}, {self.input_size}, {self.hidden_size}"
