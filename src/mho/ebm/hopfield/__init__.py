"""Hopfield networks described by their energy: dense, convolutional, residual."""

from mho.ebm.hopfield.activations import Activation, Clip, Identity, Sigmoid
from mho.ebm.hopfield.build import conv_net, dense_net, hopfield_resnet13
from mho.ebm.hopfield.clamped import Clamped, Dynamics, clamp, scores
from mho.ebm.hopfield.costs import Cost, CrossEntropy, MeanSquares
from mho.ebm.hopfield.layers import Conv, Dense, Layer
from mho.ebm.hopfield.network import HopfieldNet

__all__ = [
    "Activation",
    "Clamped",
    "Clip",
    "Conv",
    "Cost",
    "CrossEntropy",
    "Dense",
    "Dynamics",
    "HopfieldNet",
    "Identity",
    "Layer",
    "MeanSquares",
    "Sigmoid",
    "clamp",
    "conv_net",
    "dense_net",
    "hopfield_resnet13",
    "scores",
]
