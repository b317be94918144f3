import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.sampling.prefix import common_length, shared_prefixes

ROWS = st.lists(st.lists(st.integers(0, 2), max_size=12).map(tuple), max_size=12)


@given(ROWS, st.integers(1, 4))
def test_each_row_stands_behind_one_prefix_which_it_begins_with(rows, least):
    groups = shared_prefixes(rows, least)
    assert sorted(i for _, group in groups for i in group) == list(range(len(rows)))
    for depth, group in groups:
        assert len({rows[i][:depth] for i in group}) == 1
        assert all(len(rows[i]) >= depth for i in group)


@given(ROWS, st.integers(1, 4))
def test_no_two_rows_share_a_piece_worth_keeping_that_is_read_twice(rows, least):
    groups = shared_prefixes(rows, least)
    depth_of = {i: depth for depth, group in groups for i in group}
    for a in range(len(rows)):
        for b in range(a):
            shared = common_length(rows[a], rows[b])
            assert shared - min(depth_of[a], depth_of[b]) < least or shared - max(depth_of[a], depth_of[b]) < least


@given(st.lists(st.integers(0, 1)).map(tuple), st.lists(st.integers(0, 1)).map(tuple))
def test_the_common_length_is_that_of_a_walk_token_by_token(a, b):
    walked = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    assert common_length(a, b) == walked
    assert common_length(a, b, known=walked // 2) == walked


def test_nested_prompts_are_a_growing_prefix():
    draw = random.Random(0)
    shots = [tuple(draw.randrange(100) for _ in range(40)) for _ in range(4)]
    items = [tuple(draw.randrange(100, 200) for _ in range(5)) for _ in range(3)]
    rows = [sum(shots[:k], ()) + item for k in (1, 2, 4) for item in items]
    assert [(depth, len(group)) for depth, group in shared_prefixes(rows)] == [(40, 3), (80, 3), (160, 3)]


@pytest.mark.parametrize("rows", [[], [()], [(), ()], [(1, 2)]])
def test_rows_with_nothing_to_share_have_the_empty_prefix(rows):
    assert shared_prefixes(rows) == ([(0, list(range(len(rows))))] if rows else [])
