"""The denoising thermodynamic model: one small Boltzmann machine for each step back through the noise."""

import torch
from torch import Tensor, nn

from mho.ebm.generate.forward import BitFlips
from mho.ebm.generate.placement import Placement
from mho.errors import InputError


class DenoisingModel(nn.Module):
    """p(x_{t-1}, z | x_t) ~ exp(sum_edges J_ij s_i s_j + sum_i h_i s_i + g_t sum_pixels x_t x_{t-1}).

    s = (x_{t-1}, z): pixels and latent nodes. ``couplings``: T parameters [E]; ``biases``: T parameters [N]; step
    t = 1 ... T is at index t - 1. ``g_t`` is fixed by the forward process, so the machine itself is a model of the
    noisy images of time t - 1 and the field makes it a posterior: Bayes' rule, exact if the machine is exact. With
    T = 1 the field is absent: the plain, monolithic Boltzmann machine. Energies are in units of kT of a sampler
    without temperature error.

    ``coupling_limit``, ``bias_limit``: full scale of the conductances; training stays inside. Source: Jelincic et
    al., arXiv:2510.23972.
    """

    def __init__(
        self, placement: Placement, flips: BitFlips, *, coupling_limit: float = 0.5, bias_limit: float = 4.0
    ) -> None:
        super().__init__()
        if not (0 < coupling_limit < float("inf") and 0 < bias_limit < float("inf")):
            raise InputError(
                f"DenoisingModel: coupling_limit = {coupling_limit}, bias_limit = {bias_limit}: a full scale is "
                "positive and finite. Fix: about 0.5 and 4 (units of kT)."
            )
        self.placement, self.flips = placement, flips
        self.coupling_limit, self.bias_limit = coupling_limit, bias_limit
        graph = placement.graph
        self.couplings = nn.ParameterList(torch.zeros(graph.n_edges) for _ in range(flips.steps))
        self.biases = nn.ParameterList(torch.zeros(graph.nodes) for _ in range(flips.steps))

    @property
    def steps(self) -> int:
        """T."""
        return self.flips.steps

    @property
    def size(self) -> int:
        """The number of trained parameters."""
        return sum(p.numel() for p in self.parameters())

    @torch.no_grad()
    def start(self, images: Tensor, generator: torch.Generator, *, spread: float = 0.01) -> None:
        """Couplings small and random; biases so that, alone, they give the mean image of half strength.

        ``images`` [N, P], -1 and +1: the training images.
        """
        mean = images.mean(0).clamp(-0.98, 0.98)
        for t in range(1, self.steps + 1):
            kept = 1.0 - 2.0 * self.flips.level(t - 1)
            self.couplings[t - 1].normal_(0.0, spread, generator=generator)
            self.biases[t - 1].zero_()[self.placement.visible] = 0.5 * torch.atanh(kept * mean)
        self.confine()

    @torch.no_grad()
    def confine(self) -> None:
        """Clip every parameter to its full scale: what a conductance cannot hold is not learned."""
        for t in range(self.steps):
            self.couplings[t].clamp_(-self.coupling_limit, self.coupling_limit)
            self.biases[t].clamp_(-self.bias_limit, self.bias_limit)
