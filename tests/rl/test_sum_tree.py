from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raptor.rl.sum_tree import empty_levels, find_leaves, recompute, set_leaves

Levels = tuple[torch.Tensor, ...]


def filled(num_trees: int, num_leaves: int, zeros: float = 0.3, seed: int = 0) -> Levels:
    generator = torch.Generator().manual_seed(seed)
    tree = empty_levels(num_trees, num_leaves)
    shape = num_trees, num_leaves
    values = torch.rand(shape, generator=generator) * (torch.rand(shape, generator=generator) >= zeros)
    values[:, num_leaves // 2] = 0.5  # at least one that is not zero
    set_leaves(tree, torch.arange(num_leaves).expand(num_trees, -1), values)
    return tree


def assert_sums(tree: Levels) -> None:
    for children, parents in itertools.pairwise(tree):
        groups = children.double().unflatten(-1, (-1, 16)).sum(-1)
        torch.testing.assert_close(parents[:, : groups.shape[-1]].double(), groups, rtol=2e-6, atol=0)
        assert (parents[:, groups.shape[-1] :] == 0).all()


@pytest.mark.parametrize("num_leaves", [1, 16, 17, 300, 5000])
def test_masses_fall_on_the_leaves_that_a_search_in_the_cumulative_sum_finds(num_leaves):
    tree = filled(2, num_leaves)
    mass = torch.rand(2, 400, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * tree[-1].sum(
        -1, keepdim=True
    )
    found = find_leaves(tree, mass)
    for t in range(2):
        ends = np.cumsum(tree[0][t, :num_leaves].double().numpy())
        expected = np.searchsorted(ends, mass[t].numpy(), side="right")
        edge = np.abs(ends[:, None] - mass[t].numpy()).min(0) < 1e-5 * ends[-1]
        assert edge.mean() < 0.2
        np.testing.assert_array_equal(found[t].numpy()[~edge], expected[~edge])


@settings(max_examples=40)
@given(
    exponents=st.lists(st.one_of(st.none(), st.integers(-30, 20)), min_size=1, max_size=300),
    share=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_leaf_of_zero_is_never_found_not_even_at_the_very_ends(exponents, share, dtype):
    if all(exponent is None for exponent in exponents):
        exponents.append(0)
    tree = empty_levels(1, len(exponents))
    values = torch.tensor([[0.0 if exponent is None else 10.0**exponent for exponent in exponents]])
    set_leaves(tree, torch.arange(len(exponents))[None], values)
    total = tree[-1].sum(-1, keepdim=True).to(dtype)
    edges = torch.cumsum(values.to(dtype), -1)
    mass = torch.cat([total * 0, total * share, total, total * (1 + 1e-6), edges], dim=-1)
    found = find_leaves(tree, mass)
    assert (tree[0].gather(-1, found) > 0).all()
    assert found[0, 0] == values[0].nonzero()[0, 0]


def test_where_all_leaves_are_zero_the_first_is_found():
    assert (find_leaves(empty_levels(2, 300), torch.zeros(2, 3, dtype=torch.float64)) == 0).all()


@pytest.mark.parametrize("num_leaves", [30, 6000])
def test_sums_do_not_drift_and_a_leaf_set_twice_holds_one_of_its_values(num_leaves):
    tree = filled(2, num_leaves)
    generator = torch.Generator().manual_seed(2)
    for _ in range(50):
        index = torch.randint(num_leaves, (2, 12), generator=generator)
        index[:, 1] = index[:, 0]
        value = torch.rand(2, 12, generator=generator) * 10 ** torch.randint(-6, 7, (2, 12), generator=generator)
        set_leaves(tree, index, value)
        for t in range(2):
            for leaf, held in zip(index[t], tree[0].gather(-1, index)[t], strict=True):
                assert held in value[t][index[t] == leaf]
    assert_sums(tree)
    incremental = [level.clone() for level in tree]
    recompute(tree)
    assert all(torch.equal(old, new) for old, new in zip(incremental, tree, strict=True))
