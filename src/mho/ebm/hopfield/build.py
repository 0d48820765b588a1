"""Networks that recipes name: a dense one, a convolutional one, and a residual one of 13 weight tensors."""

from mho.ebm.hopfield.activations import Clip
from mho.ebm.hopfield.layers import Conv, Dense, Layer, Shape
from mho.ebm.hopfield.network import HopfieldNet
from mho.ebm.relax import Relaxation

OUTPUT = Clip(-1.0, 2.0)
"""Bounds of output units: wide of the targets 0 and 1, so that no error is hidden, and finite for converters."""


def dense_net(
    input_shape: Shape = (1, 28, 28),
    classes: int = 10,
    units: tuple[int, ...] = (512,),
    *,
    gain: float = 1.0,
    output_gain: float = 0.5,
    bound_sigma: float | None = None,
    seed: int = 0,
    relaxation: Relaxation | None = None,
) -> HopfieldNet:
    """Hidden layers of ``units`` clipped to [0, 1], and an output for squared errors.

    ``gain`` of the weights that read the input, ``output_gain`` of all between states: loops of couplings converge
    the slower the stronger they are.
    """
    layers: tuple[Layer, ...] = (*(Dense(units=count) for count in units), Dense(units=classes, activation=OUTPUT))
    gains = (gain, *(output_gain for _ in layers[1:]))
    return HopfieldNet(
        input_shape,
        layers,
        gain=gains,
        bound_sigma=bound_sigma,
        seed=seed,
        relaxation=relaxation or Relaxation(40, None),
    )


def conv_net(
    input_shape: Shape = (1, 28, 28),
    classes: int = 10,
    channels: tuple[int, int] = (32, 64),
    *,
    gain: float = 1.0,
    output_gain: float = 0.5,
    bound_sigma: float | None = None,
    seed: int = 0,
    relaxation: Relaxation | None = None,
) -> HopfieldNet:
    """Two convolutions of 5 x 5 without padding: max pooling by 2 after the first, which sees the clamped input and is
    pooled once; a stride of 2 in the second, which is read in every sweep. Then a dense output.
    """
    first, second = channels
    layers: tuple[Layer, ...] = (
        Conv(channels=first, kernel=5, padding=0, pool="max"),
        Conv(channels=second, kernel=5, stride=2, padding=0),
        Dense(units=classes, activation=OUTPUT),
    )
    gains = (gain, output_gain, output_gain)
    return HopfieldNet(
        input_shape,
        layers,
        gain=gains,
        bound_sigma=bound_sigma,
        seed=seed,
        relaxation=relaxation or Relaxation(30, None),
    )


def hopfield_resnet13(
    input_shape: Shape = (3, 32, 32),
    classes: int = 10,
    channels: tuple[int, int, int, int] = (128, 256, 512, 512),
    *,
    gain: float = 0.35,
    output_gain: float = 0.46,
    bound_sigma: float | None = None,
    seed: int = 0,
    relaxation: Relaxation | None = None,
) -> HopfieldNet:
    """Four blocks of two 3 x 3 convolutions (the second of stride 2) with a 1 x 1 coupling around them, ReLU clipped
    at 6, and a dense output: 13 weight tensors (Sankar Vinayak and Srinivasan 2025, arXiv:2509.26003; 93.92 % on
    CIFAR-10 after 300 epochs with channels as by default). Narrower ``channels`` for smaller machines.

    The published gains, 0.6 to 0.7 and 0.8, are of uniform weights on +-gain / sqrt(inputs): a standard deviation of
    gain / sqrt(3 inputs). Normal weights at 0.6 / sqrt(inputs) have states that hold one another up without an input.
    """
    relu6 = Clip(0.0, 6.0)
    layers: list[Layer] = []
    for block, width in enumerate(channels):
        layers += [
            Conv(channels=width, activation=relu6),
            Conv(channels=width, stride=2, activation=relu6, skip=2 * block),
        ]
    layers.append(Dense(units=classes, activation=Clip(-6.0, 6.0)))
    gains = (*(gain for _ in layers[:-1]), output_gain)
    return HopfieldNet(
        input_shape,
        tuple(layers),
        gain=gains,
        bound_sigma=bound_sigma,
        seed=seed,
        relaxation=relaxation or Relaxation(120, None),
    )


__all__ = ["conv_net", "dense_net", "hopfield_resnet13"]
