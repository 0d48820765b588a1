"""Moments of analog networks without sampling, and the forecast of accuracy: see README.md of this folder."""

from mho.moments.forecasting import Forecast, forecast
from mho.moments.network import AnalyticNetwork, Moments, Response, propagate, respond
from mho.moments.weights import WeightMoments, weight_moments

__all__ = [
    "AnalyticNetwork",
    "Forecast",
    "Moments",
    "Response",
    "WeightMoments",
    "forecast",
    "propagate",
    "respond",
    "weight_moments",
]
