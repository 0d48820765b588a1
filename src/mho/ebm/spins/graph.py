"""Sparse graphs with a colouring: the lattices of thermodynamic chips, restricted machines, any list of edges.

A block of one colour has no edge inside, so all its spins are updated at once.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mho.errors import InputError

PATTERNS: dict[int, tuple[tuple[int, int], ...]] = {
    4: ((0, 1),),
    8: ((0, 1), (4, 1)),
    12: ((0, 1), (4, 1), (9, 10)),
    16: ((0, 1), (4, 1), (8, 7), (14, 9)),
    20: ((0, 1), (4, 1), (3, 6), (8, 7), (14, 9)),
    24: ((0, 1), (1, 2), (4, 1), (3, 6), (8, 7), (14, 9)),
}
"""Rules (a, b) of the patterns G8 to G24 of Jelincic et al. (arXiv:2510.23972): each joins a cell with four others, at
(a, b) and its quarter turns. a + b is odd, so every edge leads from one colour of a chessboard to the other.
4 is the plain square lattice."""


@dataclass(frozen=True, eq=False)
class Graph:
    """``nodes`` spins, ``edges`` [E, 2] (int64, smaller node first, no loops, no pairs twice), ``colours`` [nodes].

    Made by :func:`lattice`, :func:`bipartite` or :func:`sparse_graph`, which check it. ``shape``: height and width of a
    lattice.
    """

    nodes: int
    edges: Tensor
    colours: Tensor
    shape: tuple[int, int] | None = None

    @property
    def n_edges(self) -> int:
        """The number of edges E: the length of a vector of couplings."""
        return self.edges.shape[0]

    @cached_property
    def blocks(self) -> tuple[Tensor, ...]:
        """The nodes of each colour, ascending."""
        return tuple(torch.nonzero(self.colours == c).flatten() for c in range(int(self.colours.max()) + 1))

    @cached_property
    def degrees(self) -> Tensor:
        """How many neighbours each node has [nodes]."""
        return torch.bincount(self.edges.flatten(), minlength=self.nodes)

    @cached_property
    def adjacency(self) -> tuple[Tensor, Tensor, Tensor]:
        """(offsets [nodes + 1], neighbours [2 E], edge [2 E]): those of node i are at offsets[i] to offsets[i + 1].

        In the order of the edges, which is the order in which a field is summed.
        """
        ends = torch.cat([self.edges, self.edges.flip(1)])
        edge = torch.arange(self.n_edges).repeat(2)
        order = torch.argsort(ends[:, 0] * max(self.n_edges, 1) + edge)
        offsets = torch.zeros(self.nodes + 1, dtype=torch.int64)
        offsets[1:] = torch.cumsum(self.degrees, 0)
        return offsets, ends[order, 1].contiguous(), edge[order].contiguous()

    @cached_property
    def table(self) -> tuple[Tensor, Tensor]:
        """(neighbours, edge), both [nodes, largest degree]: the adjacency, padded with node 0 and edge E."""
        offsets, neighbours, edge = self.adjacency
        width = int(self.degrees.max()) if self.n_edges else 0
        slot = torch.arange(width).expand(self.nodes, width)
        filled = slot < self.degrees[:, None]
        place = (offsets[:-1, None] + slot)[filled]
        near = torch.zeros(self.nodes, width, dtype=torch.int64)
        which = torch.full((self.nodes, width), self.n_edges, dtype=torch.int64)
        near[filled], which[filled] = neighbours[place], edge[place]
        return near, which


def _sorted_edges(edges: Tensor, nodes: int) -> Tensor:
    """The edges checked, smaller node first, in lexicographic order. Raises :class:`InputError`."""
    if edges.numel() == 0:
        return torch.zeros(0, 2, dtype=torch.int64)
    if edges.dim() != 2 or edges.shape[1] != 2 or edges.is_floating_point():
        raise InputError(f"mho.ebm.spins: edges {tuple(edges.shape)} {edges.dtype} must be whole numbers [E, 2].")
    edges = edges.to("cpu", torch.int64).sort(1).values
    low, high = int(edges.min()), int(edges.max())
    if low < 0 or high >= nodes:
        raise InputError(f"mho.ebm.spins: edges name the nodes {low} to {high}; there are 0 to {nodes - 1}.")
    loops = edges[edges[:, 0] == edges[:, 1], 0]
    if loops.numel():
        raise InputError(
            f"mho.ebm.spins: {loops.numel()} edges join a node with itself (first: {int(loops[0])}); s s = 1 is a "
            "constant energy. Fix: leave them out."
        )
    kept: Tensor = torch.unique(edges, dim=0)
    if kept.shape[0] != edges.shape[0]:
        raise InputError(
            f"mho.ebm.spins: {edges.shape[0] - kept.shape[0]} edges appear twice. Fix: add up their couplings and give "
            "each pair once."
        )
    return kept


def sparse_graph(nodes: int, edges: Tensor, colours: Tensor | None = None) -> Graph:
    """A graph of any edges [E, 2]; without ``colours`` it is coloured by :func:`colour`.

    The edges are kept in lexicographic order: read ``graph.edges`` before giving couplings.
    Raises :class:`InputError` for nodes out of range, loops, doubled edges and colours that an edge contradicts.
    """
    if nodes < 1:
        raise InputError(f"mho.ebm.spins: a graph of {nodes} nodes; give at least 1.")
    edges = _sorted_edges(edges, nodes)
    found = colour(nodes, edges) if colours is None else colours.to("cpu", torch.int64)
    graph = Graph(nodes, edges, found)
    if colours is not None:
        if found.shape != (nodes,) or int(found.min()) < 0:
            raise InputError(
                f"mho.ebm.spins: colours {tuple(found.shape)} must be numbers from 0, one for {nodes} nodes."
            )
        check_colours(graph, graph.blocks)
    return graph


def lattice(height: int, width: int, connectivity: int = 4, *, periodic: bool = False) -> Graph:
    """A grid whose node (y, x) = y width + x joins (y + b, x + a), (y + a, x - b), (y - b, x - a), (y - a, x + b).

    (a, b): the rules of ``PATTERNS[connectivity]``: 4, 8, 12, 16, 20 or 24 neighbours inside, fewer at an open
    border. ``periodic``: the grid is a torus. Two colours (a chessboard), but for a torus with an odd side.
    Raises :class:`InputError` for another connectivity, sides below 1, or a torus so small that two of a node's
    neighbours are one.
    """
    if connectivity not in PATTERNS:
        raise InputError(f"mho.ebm.spins.lattice: connectivity {connectivity} is unknown. Known: {sorted(PATTERNS)}.")
    if height < 1 or width < 1:
        raise InputError(f"mho.ebm.spins.lattice: a grid of {height} x {width}; both sides must be at least 1.")
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    here, pairs = (y * width + x).flatten(), []
    for a, b in PATTERNS[connectivity]:
        for dx, dy in ((a, b), (-b, a)):  # the two opposite turns are the same edges seen from their other ends
            to_y, to_x = (y + dy).flatten(), (x + dx).flatten()
            if periodic:
                to_y, to_x = to_y % height, to_x % width
            inside = (to_y >= 0) & (to_y < height) & (to_x >= 0) & (to_x < width)
            pairs.append(torch.stack([here[inside], (to_y * width + to_x)[inside]], 1))
    edges = torch.cat(pairs)
    if periodic and torch.unique(edges.sort(1).values, dim=0).shape[0] != edges.shape[0]:
        raise InputError(
            f"mho.ebm.spins.lattice: on a torus of {height} x {width} two of a node's {connectivity} neighbours are "
            "one node. Fix: larger sides, or periodic=False."
        )
    even = not periodic or (height % 2 == 0 and width % 2 == 0)
    graph = sparse_graph(height * width, edges, ((y + x) % 2).flatten() if even else None)
    return Graph(graph.nodes, graph.edges, graph.colours, (height, width))


def bipartite(visible: int, hidden: int) -> Graph:
    """Each of the nodes 0 ... visible - 1 joined with each of the ``hidden`` ones after them: a restricted machine.

    Edge i hidden + j joins visible i with hidden j, so ``couplings.view(visible, hidden)`` is the weight matrix.
    """
    if visible < 1 or hidden < 1:
        raise InputError(f"mho.ebm.spins.bipartite: {visible} visible and {hidden} hidden nodes; give at least 1 each.")
    v, h = torch.meshgrid(torch.arange(visible), torch.arange(visible, visible + hidden), indexing="ij")
    colours = torch.cat([torch.zeros(visible, dtype=torch.int64), torch.ones(hidden, dtype=torch.int64)])
    return Graph(visible + hidden, torch.stack([v.flatten(), h.flatten()], 1), colours)


def colour(nodes: int, edges: Tensor) -> Tensor:
    """Colours [nodes] from 0 such that no edge joins two nodes of one colour, by DSATUR.

    The node that sees the most colours is coloured next (ties: more neighbours, then the smaller number), with the
    smallest colour free. Two colours for every graph that needs no more; at most 1 + the largest degree.
    Source: Brelaz, Communications of the ACM 22 (1979).
    """
    near: list[list[int]] = [[] for _ in range(nodes)]
    for a, b in edges.tolist():
        near[a].append(b)
        near[b].append(a)
    seen: list[set[int]] = [set() for _ in range(nodes)]
    colours = [-1] * nodes
    queue = [(0, -len(near[i]), i) for i in range(nodes)]
    heapq.heapify(queue)
    while queue:
        saturation, _, i = heapq.heappop(queue)
        if colours[i] >= 0 or -saturation != len(seen[i]):
            continue  # an entry from before its neighbours were coloured
        chosen = 0
        while chosen in seen[i]:
            chosen += 1
        colours[i] = chosen
        for j in near[i]:
            if colours[j] < 0 and chosen not in seen[j]:
                seen[j].add(chosen)
                heapq.heappush(queue, (-len(seen[j]), -len(near[j]), j))
    return torch.tensor(colours, dtype=torch.int64)


def check_colours(graph: Graph, blocks: Sequence[Tensor]) -> None:
    """Raise :class:`InputError` unless each node is in exactly one block and no edge lies inside a block.

    Spins of one block are updated together from the same neighbours; with an edge inside, the law of the chain would
    not be the Boltzmann law.
    """
    count = torch.zeros(graph.nodes, dtype=torch.int64)
    number = torch.full((graph.nodes,), -1, dtype=torch.int64)
    for index, block in enumerate(blocks):
        if block.numel() and (int(block.min()) < 0 or int(block.max()) >= graph.nodes):
            raise InputError(
                f"mho.ebm.spins: block {index} names the nodes {int(block.min())} to {int(block.max())}; there are 0 "
                f"to {graph.nodes - 1}."
            )
        count += torch.bincount(block.flatten(), minlength=graph.nodes)
        number[block] = index
    wrong = torch.nonzero(count != 1).flatten()
    if wrong.numel():
        first = int(wrong[0])
        raise InputError(
            f"mho.ebm.spins: {wrong.numel()} of {graph.nodes} nodes are not in exactly one block (node {first} is in "
            f"{int(count[first])}). Fix: the blocks must partition the nodes; clamp what must not move."
        )
    inside = torch.nonzero(number[graph.edges[:, 0]] == number[graph.edges[:, 1]]).flatten()
    if inside.numel():
        a, b = graph.edges[int(inside[0])].tolist()
        needed = int(colour(graph.nodes, graph.edges).max()) + 1
        raise InputError(
            f"mho.ebm.spins: the graph is not coloured by the {len(blocks)} blocks given: {inside.numel()} of "
            f"{graph.n_edges} edges lie inside a block (first: nodes {a} and {b}, both in block {int(number[a])}). "
            f"Way out: leave the blocks out; mho.ebm.spins.colour finds {needed} blocks for this graph."
        )
