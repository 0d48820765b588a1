"""Where the pixels of an image sit on the lattice of a chip; the other nodes are latent."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

import torch
from torch import Tensor

from mho.ebm.spins import Graph, lattice
from mho.errors import InputError
from mho.rng import stream

Layout = Literal["chessboard", "columns", "random"]
LAYOUTS: tuple[Layout, ...] = ("chessboard", "columns", "random")


@final
@dataclass(frozen=True, eq=False)
class Placement:
    """``visible`` [P]: the node of each pixel, in row-major order of the image; all other nodes are latent."""

    graph: Graph
    visible: Tensor

    @cached_property
    def is_visible(self) -> Tensor:
        """bool [N]."""
        mask = torch.zeros(self.graph.nodes, dtype=torch.bool)
        mask[self.visible] = True
        return mask

    @cached_property
    def restricted(self) -> bool:
        """No edge joins two latent nodes: given the pixels, one update of the latent nodes is an exact sample."""
        latent = ~self.is_visible
        edges = self.graph.edges
        return not bool((latent[edges[:, 0]] & latent[edges[:, 1]]).any())

    def images(self, spins: Tensor) -> Tensor:
        """The pixels of states [..., N]: [..., P], float32."""
        return spins[..., self.visible].float()

    def states(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """States int8 [B, N] with the pixels of ``images`` [B, P] and fair coins on the latent nodes."""
        spins = torch.randint(0, 2, (len(images), self.graph.nodes), generator=generator).mul_(2).sub_(1)
        spins[:, self.visible] = images.to(spins.dtype)
        return spins.to(torch.int8)


def place(
    height: int = 28, width: int = 28, *, layout: Layout = "chessboard", connectivity: int = 12, latent: int = 1
) -> Placement:
    """Pixels of a height x width image and ``latent`` latent nodes a pixel on a grid height x (1 + latent) width.

    ``chessboard``: the pixel's node of the 1 + latent neighbours in a row moves by one from row to row; with latent = 1
    and the two-coloured patterns all pixels have one colour, so the machine is a local restricted Boltzmann machine.
    ``columns``: always the first of them, so pixels are joined with pixels too. ``random``: pixels on any nodes (as in
    arXiv:2510.23972), from a fixed stream. ``connectivity``: see :func:`mho.ebm.spins.lattice`.

    Raises :class:`InputError` for sides below 1, fewer than 1 latent node a pixel or another layout.
    """
    if layout not in LAYOUTS or min(height, width, latent) < 1:
        raise InputError(
            f"place: {height} x {width} pixels, {latent} latent nodes a pixel, layout {layout!r}. Fix: sides and "
            f"latent of 1 or more; layout one of {', '.join(LAYOUTS)}."
        )
    every = 1 + latent
    columns = every * width
    graph = lattice(height, columns, connectivity)
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    if layout == "random":
        visible = torch.randperm(graph.nodes, generator=stream("placement", height, width, latent))[: height * width]
        return Placement(graph, visible.sort().values)
    shift = row % every if layout == "chessboard" else torch.zeros_like(row)
    return Placement(graph, (row * columns + every * column + shift).flatten())
