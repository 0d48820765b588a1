"""How each tool puts a digital network on hardware: 8-bit converters, output and weight noise, clipping of weights.

A tool is imported when it is asked for, so that this file loads in every environment. Each returns a function that runs
a case once.
"""

from collections.abc import Callable
from types import MappingProxyType

import torch
from networks import BITS, CLIP_SIGMA, LEARNING_RATE, OUTPUT_NOISE, WEIGHT_NOISE, inference, training_step
from torch import Tensor, nn

Run = Callable[[], object]
STEPS = 2**BITS - 2


def plain(model: nn.Module, x: Tensor, y: Tensor, training: bool) -> Run:
    """torch itself."""
    if not training:
        return inference(model, x)
    return training_step(model, x, y, torch.optim.SGD(model.parameters(), lr=LEARNING_RATE))


def mho_surrogate(model: nn.Module, x: Tensor, y: Tensor, training: bool) -> Run:
    """mho: the surrogate in training, one fabricated chip with fresh noise at each read in inference."""
    import mho
    from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping

    hw = Hardware(
        name="peers",
        cell=GenericCell(programming_noise=WEIGHT_NOISE),
        mapping=Mapping(scheme="signed"),
        dac=Dac(bits=BITS),
        adc=Adc(bits=BITS),
        output_noise=OUTPUT_NOISE,
    )
    analog = mho.calibrate(mho.convert(model, hw, clip_sigma=CLIP_SIGMA, ranges="learned"), [x])
    return plain(analog if training else mho.fabricate(analog, chips=1), x, y, training)


def lightning(model: nn.Module, x: Tensor, y: Tensor, training: bool) -> Run:
    """aihwkit-lightning. In eval mode it rounds, and has no noise at all: its inference does less than the others'."""
    from aihwkit_lightning.nn.conversion import convert_to_analog
    from aihwkit_lightning.optim import AnalogOptimizer
    from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig, WeightClipType, WeightNoiseInjectionType

    config = TorchInferenceRPUConfig()
    config.forward.inp_res = config.forward.out_res = STEPS
    config.forward.out_noise, config.forward.out_bound = OUTPUT_NOISE, 12.0
    config.clip.type, config.clip.sigma = WeightClipType.LAYER_GAUSSIAN, CLIP_SIGMA
    config.modifier.noise_type, config.modifier.std_dev = WeightNoiseInjectionType.ADD_NORMAL, WEIGHT_NOISE
    config.mapping.max_input_size = -1
    config.pre_post.input_range.enable = True
    config.pre_post.input_range.init_from_data = 1
    analog = convert_to_analog(model, config)
    analog.train()
    analog(x)  # sets the input ranges
    if not training:
        return inference(analog, x)
    optimizer = AnalogOptimizer(torch.optim.SGD, analog.analog_layers, analog.parameters(), lr=LEARNING_RATE)
    return training_step(analog, x, y, optimizer)


def aihwkit_torch(model: nn.Module, x: Tensor, y: Tensor, training: bool) -> Run:
    """aihwkit's tile in torch."""
    from aihwkit.simulator.configs import TorchInferenceRPUConfig

    return _aihwkit(TorchInferenceRPUConfig(), model, x, y, training)


def aihwkit_cpp(model: nn.Module, x: Tensor, y: Tensor, training: bool) -> Run:
    """aihwkit's tile in C++."""
    from aihwkit.simulator.configs import InferenceRPUConfig

    return _aihwkit(InferenceRPUConfig(), model, x, y, training)


def _aihwkit(config: object, model: nn.Module, x: Tensor, y: Tensor, training: bool) -> Run:
    from aihwkit.nn.conversion import convert_to_analog
    from aihwkit.optim import AnalogSGD
    from aihwkit.simulator.configs import BoundManagementType, NoiseManagementType, WeightClipType, WeightModifierType

    forward, modifier, ranges = config.forward, config.modifier, config.pre_post.input_range
    forward.inp_res = forward.out_res = STEPS
    forward.out_noise, forward.out_bound = OUTPUT_NOISE, 12.0
    forward.noise_management, forward.bound_management = NoiseManagementType.NONE, BoundManagementType.NONE
    config.clip.type, config.clip.sigma = WeightClipType.LAYER_GAUSSIAN, CLIP_SIGMA
    modifier.type, modifier.std_dev = WeightModifierType.ADD_NORMAL, WEIGHT_NOISE
    config.mapping.max_input_size = config.mapping.max_output_size = 0
    ranges.enable, ranges.init_from_data = True, 1
    analog = convert_to_analog(model, config)
    analog.train()
    analog(x)
    if not training:
        return inference(analog, x)
    optimizer = AnalogSGD(analog.parameters(), lr=LEARNING_RATE)
    optimizer.regroup_param_groups(analog)
    return training_step(analog, x, y, optimizer)


def crosssim(model: nn.Module, x: Tensor, y: Tensor, training: bool) -> Run:
    """CrossSim with balanced pairs, programming errors, converters whose ranges hold this batch, and weights clipped.

    Its ranges are fixed and it has no output noise; its noise on a weight at each read takes products one by one, and
    is left out. In training its arrays are written anew after each step, with new errors.
    """
    from simulator.algorithms.dnn.torch.convert import convertible_modules, from_torch, synchronize

    ranges = _ranges(model, x, convertible_modules(model))
    analog = from_torch(model, [_crosssim_layer(layer, *ranges[layer]) for layer in convertible_modules(model)])
    if not training:
        return inference(analog, x)
    step = training_step(analog, x, y, torch.optim.SGD(analog.parameters(), lr=LEARNING_RATE))

    def step_and_write() -> object:
        step()
        return synchronize(analog)

    return step_and_write


def _crosssim_layer(layer: nn.Module, inputs: float, outputs: float) -> object:
    """Parameters of a layer whose inputs and outputs reach these magnitudes; an ADC sees y / (max|x| max|w|)."""
    from simulator import CrossSimParameters
    from simulator.parameters.xbar_parameters import ADCRangeLimits

    params = CrossSimParameters()
    error = params.xbar.device.programming_error
    params.xbar.device.infinite_on_off_ratio = True
    error.enable, error.model = True, "NormalIndependentDevice"
    error.magnitude = WEIGHT_NOISE / 2**0.5  # each of the two cells of a weight
    bound = CLIP_SIGMA * layer.weight.std().item()
    weights, signal = params.core.mapping.weights, params.core.mapping.inputs.mvm
    weights.percentile, weights.min, weights.max, weights.clipping = None, -bound, bound, True
    signal.min, signal.max, signal.clipping = -inputs, inputs, True
    dac, adc = params.xbar.dac.mvm, params.xbar.adc.mvm
    dac.model, dac.bits = "SignMagnitudeDAC", BITS
    adc.model, adc.bits, adc.adc_range_option = "SignMagnitudeADC", BITS, ADCRangeLimits.CALIBRATED
    top = outputs / (inputs * bound)
    adc.calibrated_range = [-top, top]
    return params


def _ranges(model: nn.Module, x: Tensor, layers: list[nn.Module]) -> dict[nn.Module, tuple[float, float]]:
    """The largest magnitudes that each layer takes in and gives out, on the digital network."""
    found: dict[nn.Module, tuple[float, float]] = {}

    def watch(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        found[layer] = given[0].abs().max().item(), output.abs().max().item()

    hooks = [layer.register_forward_hook(watch) for layer in layers]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


TOOLS = MappingProxyType(
    {
        "torch": plain,
        "mho": mho_surrogate,
        "lightning": lightning,
        "aihwkit_torch": aihwkit_torch,
        "aihwkit_cpp": aihwkit_cpp,
        "crosssim": crosssim,
    }
)
PACKAGES = MappingProxyType(
    {
        "torch": "torch",
        "mho": "mho",
        "lightning": "aihwkit-lightning",
        "aihwkit_torch": "aihwkit",
        "aihwkit_cpp": "aihwkit",
        "crosssim": "CrossSim",
    }
)
"""What a tool is called where packages are installed."""
