"""Running XOR of bits: exact, all outputs at once, no row in both splits."""

import pytest

from posttrain.config import ConfigError, build
from posttrain.tasks.icl.parity import ParityInContext, load, make_icl, running_parity
from posttrain.types import DataError

SMALL = ParityInContext(pool_size=100, test_size=20)


def test_output_i_is_the_xor_of_inputs_1_to_i():
    assert running_parity([1, 0, 1, 1, 0]) == [1, 1, 0, 1, 1]
    for problem in load(SMALL, "test"):
        bits, outputs = ([int(bit) for bit in text.split()] for text in (problem.question, problem.solution))
        assert len(bits) == 20
        assert outputs == [sum(bits[: i + 1]) % 2 for i in range(20)]


def test_every_row_is_different_and_none_stands_in_both_splits():
    pool, test = load(SMALL, "pool"), load(SMALL, "test")
    assert len({problem.question for problem in pool + test}) == 120
    everything = ParityInContext(bits=4, pool_size=10, test_size=6)
    assert len({problem.id for split in ("pool", "test") for problem in load(everything, split)}) == 16


def test_a_larger_pool_begins_with_the_smaller_one_and_leaves_the_test_rows_alone():
    large = ParityInContext(pool_size=1000, test_size=20)
    assert load(large, "pool")[:100] == load(SMALL, "pool")
    assert load(large, "test") == load(SMALL, "test")
    assert load(ParityInContext(pool_size=100, test_size=20, data_seed=1), "test") != load(SMALL, "test")


def test_all_outputs_must_match():
    task = make_icl(SMALL)
    problem = task.load("test")[0]
    right = problem.solution
    one_wrong = right[:-1] + ("1" if right[-1] == "0" else "0")
    texts = [right, f"  {right} \n\nInput: 1 0", right.replace(" ", "  "), one_wrong, right[:-2], f"{right} 0", "", "no idea"]
    assert task.score([(problem, text) for text in texts]) == [1, 1, 1, 0, 0, 0, 0, 0]


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"10 \+ 7 different rows asked for, but 4 bits make 16"):
        build(ParityInContext, [("suite.yaml", {"bits": 4, "pool_size": 10, "test_size": 7})])
    with pytest.raises(DataError, match="no split 'train'; expected pool or test"):
        load(SMALL, "train")
