import datetime
import json
import math
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.grading import plain


def refuse(*value):
    raise TypeError(f"{value} has no plain form")


def crossed(value):
    """The value after a journey through JSON text."""
    return plain.decode(json.loads(json.dumps(plain.encode(value, refuse))), refuse)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(codec=None, exclude_categories=()))
    | st.binary()
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.just(datetime.UTC) | st.none())
    | st.dates()
    | st.timedeltas()
)
hashable = st.recursive(scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner) | st.dictionaries(hashable, inner) | st.sets(hashable) | st.tuples(inner) | st.builds(deque, st.lists(inner))
    ),
    max_leaves=12,
)


@given(values)
def test_every_value_comes_out_equal_and_of_the_same_type(value):
    back = crossed(value)
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value) or isinstance(value, set | frozenset | dict | list | tuple | deque)


@pytest.mark.parametrize(
    "value",
    [
        -0.0,
        math.inf,
        10**4000,
        -(1 << 63),
        1 << 63,
        "\ud83d\ude00",  # two surrogates, which JSON would join to one character
        "\U0001f600",
        range(3, 9, 2),
        slice(1, None, 2),
        ...,
        NotImplemented,
        int,
        ValueError,
        bytearray(b"\x00"),
        Counter("abca"),
        OrderedDict([("b", 1), ("a", 2)]),
        defaultdict(list, a=[1]),
        deque([1, 2], 3),
        datetime.time(1, 2, 3),
    ],
)
def test_types_beyond_the_generated_ones_cross_exactly(value):
    back = crossed(value)
    assert (back, type(back), repr(back)) == (value, type(value), repr(value))


def test_not_a_number_stays_one_and_views_of_a_dict_compare_as_sets_do():
    assert math.isnan(crossed(math.nan))
    assert crossed({"a": 1, "b": 2}.keys()) == {"a", "b"}
    assert crossed({"a": 1}.items()) == {("a", 1)}
    assert list(crossed({"a": 1, "b": 1}.values())) == [1, 1]


@pytest.mark.parametrize("base", [int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict, deque, Fraction, Decimal])
def test_a_subclass_that_lies_crosses_as_the_value_its_base_type_sees(base):
    def lie(*_):
        raise AssertionError("the subclass was asked")

    names = (
        "__eq__",
        "__iter__",
        "__len__",
        "__str__",
        "__repr__",
        "__int__",
        "__float__",
        "__getitem__",
        "__reduce__",
        "items",
        "__index__",
    )
    liar = type("Liar", (base,), {**{name: lie for name in names if hasattr(base, name)}, "__hash__": lambda self: 0})
    back = crossed(liar())
    assert type(back) is base
    assert back == base()


def test_a_named_tuple_crosses_as_a_tuple():
    assert crossed(namedtuple("Point", "x y")(1, 2)) == (1, 2)


def test_what_is_no_plain_value_is_named_by_the_caller():
    thing = object()
    tree = plain.encode([1, thing], lambda value: {"ref": 7})
    assert tree == [1, {"ref": 7}]
    assert plain.decode(tree, lambda tag, payload: (tag, payload)) == [1, ("ref", 7)]


def test_size_and_depth_are_bounded_before_anything_is_copied():
    endless: list = []
    endless.append(endless)
    with pytest.raises(plain.TooLarge, match="more than 150 levels"):
        plain.encode(endless, refuse)
    with pytest.raises(plain.TooLarge, match="1,000,000 parts"):
        plain.encode([0] * 1_000_001, refuse)


@pytest.mark.parametrize(
    "tree",
    [
        {"set": [[1]]},
        {"set": 3},
        {"int": 5},
        {"int": "zz"},
        {"bytes": "xyz"},
        {"str": "ff"},
        {"Fraction": ["1e999999999", 1]},
        {"Fraction": [1, 0]},
        {"Decimal": 5},
        {"range": [1.5, 2, 3]},
        {"range": [0, 1, 0]},
        {"dict": [[1]]},
        {"dict": [[{"dict": []}, 1]]},
        {"type": "Verdict"},
        {"type": "__import__"},
        {"date": "yesterday"},
        {"defaultdict": ["eval", []]},
        {"deque": [-1, []]},
        {"complex": ["x", 1]},
        {"tuple": []} | {"set": []},
        {},
        json.loads("[" * 900 + "]" * 900),
    ],
)
def test_a_tree_that_is_not_one_of_ours_is_refused(tree):
    def unknown(tag, payload):
        raise plain.Malformed(tag)

    with pytest.raises(plain.Malformed):
        plain.decode(tree, unknown)


def test_nothing_is_built_but_the_types_of_the_table():
    for tag in ("eval", "object", "os.system", "__reduce__", "Judgement", "py/object"):
        with pytest.raises(plain.Malformed, match="no plain form"):
            plain.decode({tag: ["x"]}, refuse)


def test_a_container_is_updated_in_place_down_to_the_ones_within_it():
    row = [1]
    grid = {"rows": [row, [2]], "seen": {1}, "pair": ([0], "x")}
    kept = grid["pair"][0]
    plain.update(grid, {"rows": [[1, 5], [2], [3]], "seen": {1, 2}, "pair": ([9], "x"), "new": 1})
    assert grid == {"rows": [[1, 5], [2], [3]], "seen": {1, 2}, "pair": ([9], "x"), "new": 1}
    assert row == [1, 5]
    assert kept == [9]


def test_an_update_to_another_type_changes_nothing_in_place():
    items = [1]
    assert plain.update(items, (2,)) == (2,)
    assert items == [1]


@pytest.mark.parametrize(
    ("value", "mutable"),
    [([], True), ((1, "x"), False), ((1, []), True), ({}, True), (frozenset({1}), False), ("text", False), (deque(), True)],
)
def test_only_containers_that_a_call_could_change_are_sent_back(value, mutable):
    assert plain.is_mutable(plain.encode(value, refuse)) is mutable
