"""Energy-based models on analog hardware: equilibrium propagation, samplers, generation. See README.md."""

from mho.ebm import diagnostics, generate, langevin, langevin_noise, resistive, score, spins
from mho.ebm.conductances import (
    Cells,
    program_cells,
    programmed,
    quantized_states,
    read_noise,
    state_bits,
)
from mho.ebm.eqprop import EqPropResult, Nudging, eqprop_gradient
from mho.ebm.hopfield import (
    Clip,
    Conv,
    CrossEntropy,
    Dense,
    Dynamics,
    HopfieldNet,
    Identity,
    MeanSquares,
    Sigmoid,
    clamp,
    conv_net,
    dense_net,
    hopfield_resnet13,
)
from mho.ebm.implicit import implicit_gradient
from mho.ebm.relax import Relaxation, RelaxationError, Relaxed, averaged, relax
from mho.ebm.thermal import thermal_temperatures
from mho.ebm.training import (
    EqPropLoss,
    class_scores,
    eqprop_optimizer,
    evaluate_on_chips,
    fit_eqprop,
    layer_groups,
)
from mho.ebm.updates import written_on_cells

__all__ = [
    "Cells",
    "Clip",
    "Conv",
    "CrossEntropy",
    "Dense",
    "Dynamics",
    "EqPropLoss",
    "EqPropResult",
    "HopfieldNet",
    "Identity",
    "MeanSquares",
    "Nudging",
    "Relaxation",
    "RelaxationError",
    "Relaxed",
    "Sigmoid",
    "averaged",
    "clamp",
    "class_scores",
    "conv_net",
    "dense_net",
    "diagnostics",
    "eqprop_gradient",
    "eqprop_optimizer",
    "evaluate_on_chips",
    "fit_eqprop",
    "generate",
    "hopfield_resnet13",
    "implicit_gradient",
    "langevin",
    "langevin_noise",
    "layer_groups",
    "program_cells",
    "programmed",
    "quantized_states",
    "read_noise",
    "relax",
    "resistive",
    "score",
    "spins",
    "state_bits",
    "thermal_temperatures",
    "written_on_cells",
]
