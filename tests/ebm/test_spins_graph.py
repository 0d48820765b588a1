"""Graphs and their colours: patterns of the chips, networkx-free oracles, refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mho.ebm.spins import PATTERNS, bipartite, check_colours, colour, lattice, sparse_graph
from mho.errors import InputError


def proper(colours: torch.Tensor, edges: torch.Tensor) -> bool:
    return bool((colours[edges[:, 0]] != colours[edges[:, 1]]).all())


@pytest.mark.parametrize("connectivity", sorted(PATTERNS))
def test_a_lattice_joins_each_inner_cell_with_as_many_as_its_name_says_in_two_colours(connectivity: int) -> None:
    graph = lattice(40, 44, connectivity)
    inner = torch.zeros(40, 44, dtype=torch.bool)
    inner[14:-14, 14:-14] = True
    assert (graph.degrees[inner.flatten()] == connectivity).all()
    assert len(graph.blocks) == 2 and proper(graph.colours, graph.edges)
    check_colours(graph, graph.blocks)


@pytest.mark.parametrize("connectivity", sorted(PATTERNS))
def test_a_torus_has_the_same_number_of_neighbours_everywhere(connectivity: int) -> None:
    graph = lattice(32, 34, connectivity, periodic=True)
    assert (graph.degrees == connectivity).all()
    assert graph.n_edges == 32 * 34 * connectivity // 2
    assert len(graph.blocks) == 2


def test_the_neighbours_are_the_rule_and_its_quarter_turns() -> None:
    graph = lattice(31, 31, 8)
    near = graph.edges[(graph.edges == 15 * 31 + 15).any(1)]
    other = near.sum(1) - (15 * 31 + 15)
    found = {(int(n) % 31 - 15, int(n) // 31 - 15) for n in other}
    assert found == {(0, 1), (-1, 0), (0, -1), (1, 0), (4, 1), (-1, 4), (-4, -1), (1, -4)}


def test_a_torus_with_an_odd_side_is_coloured_anew() -> None:
    graph = lattice(7, 8, 4, periodic=True)
    assert proper(graph.colours, graph.edges) and len(graph.blocks) == 3


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 14), st.integers(0, 2**31), st.floats(0.05, 0.9))
def test_any_sparse_graph_is_coloured_within_brooks_greedy_bound(nodes: int, seed: int, density: float) -> None:
    pairs = torch.combinations(torch.arange(nodes))
    edges = pairs[torch.rand(len(pairs), generator=torch.Generator().manual_seed(seed)) < density]
    graph = sparse_graph(nodes, edges)
    assert proper(graph.colours, graph.edges)
    assert int(graph.colours.max()) <= int(graph.degrees.max())


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_bipartite_graphs_get_two_colours(left: int, right: int, seed: int) -> None:
    graph = bipartite(left, right)
    mixed = torch.randperm(left + right, generator=torch.Generator().manual_seed(seed))
    assert int(colour(left + right, mixed[graph.edges]).max()) == 1


def test_the_adjacency_lists_every_edge_from_both_ends_in_the_order_of_edges() -> None:
    graph = lattice(6, 7, 12)
    offsets, neighbours, edge = graph.adjacency
    for i in range(graph.nodes):
        here = slice(int(offsets[i]), int(offsets[i + 1]))
        assert (edge[here].diff() > 0).all()
        ends = graph.edges[edge[here]]
        assert ((ends == i).sum(1) == 1).all()
        assert torch.equal(ends.sum(1) - i, neighbours[here])


def test_the_couplings_of_a_restricted_machine_are_its_weight_matrix() -> None:
    graph = bipartite(3, 2)
    weights = torch.arange(6).view(3, 2)
    for value, (v, h) in zip(weights.flatten(), graph.edges, strict=True):
        assert weights[v, h - 3] == value


def test_blocks_with_an_edge_inside_are_refused_with_numbers_and_a_way_out() -> None:
    graph = lattice(3, 3)
    blocks = (torch.tensor([0, 1, 2, 4]), torch.tensor([3, 5, 6, 7, 8]))
    with pytest.raises(
        InputError, match=r"not coloured by the 2 blocks.* 7 of 12 edges.*nodes 0 and 1.*finds 2 blocks"
    ):
        check_colours(graph, blocks)


def test_blocks_that_do_not_partition_the_nodes_are_refused() -> None:
    graph = lattice(2, 2)
    with pytest.raises(InputError, match="1 of 4 nodes are not in exactly one block"):
        check_colours(graph, (torch.tensor([0]), torch.tensor([1, 2])))
    with pytest.raises(InputError, match="names the nodes 0 to 4"):
        check_colours(graph, (torch.tensor([0, 4]), torch.tensor([1, 2])))


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        (3, [[0, 3]], "0 to 3; there are 0 to 2"),
        (3, [[1, 1]], "join a node with itself"),
        (3, [[0, 1], [1, 0]], "1 edges appear twice"),
        (0, [], "give at least 1"),
    ],
)
def test_impossible_graphs_are_refused(nodes: int, edges: list[list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sparse_graph(nodes, torch.tensor(edges, dtype=torch.int64).reshape(-1, 2))


def test_impossible_lattices_are_refused() -> None:
    with pytest.raises(InputError, match="connectivity 9 is unknown"):
        lattice(4, 4, 9)
    with pytest.raises(InputError, match="both sides"):
        lattice(0, 4)
    with pytest.raises(InputError, match="are one node"):
        lattice(2, 2, 4, periodic=True)
    with pytest.raises(InputError, match="both in block 0"):
        sparse_graph(2, torch.tensor([[0, 1]]), torch.tensor([0, 0]))
