import pytest

from posttrain.evaluation.icl.log import NAME, Cell, Cost, Log, Row
from posttrain.types import DataError

CELL = Cell("many-shot", 4, 0, 0)


def chunk(*items: str, cell: Cell = CELL) -> tuple[list[Row], Cost]:
    return [Row(**cell._asdict(), item=item, score=1.0, text="x") for item in items], Cost(**cell._asdict(), items=len(items), answer_s=0.5)


def test_what_is_written_is_read_back(tmp_path):
    rows, cost = chunk("a", "b")
    full = Row(**CELL._asdict(), item="c", subject="s", score=0.0, text='"\n', finish="stop", prompt_tokens=9, answer_tokens=2,
               cached_tokens=0, nll=1.5, nll_tokens=3, choices={"Yes": 0.25, "No": 0.75})  # fmt: skip
    lost = Row(**CELL._asdict(), item="d", too_long=True, prompt_tokens=10**6)
    Log(tmp_path).append([*rows, full, lost], cost)
    again = Log(tmp_path)
    assert again.rows == [*rows, full, lost]
    assert again.costs == [cost]
    assert again.done == {CELL: {"a", "b", "c", "d"}}


@pytest.mark.parametrize("cut", [1, 40, 90, 150])
def test_what_a_kill_left_of_a_chunk_is_cut_off_and_whole_chunks_stay(tmp_path, cut):
    log = Log(tmp_path)
    log.append(*chunk("a", "b"))
    kept = (tmp_path / NAME).read_bytes()
    log.append(*chunk("c", "d"))
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:-cut])
    again = Log(tmp_path)
    assert (tmp_path / NAME).read_bytes() == kept
    assert [row.item for row in again.rows] == ["a", "b"]
    again.append(*chunk("c", "d"))
    assert [row.item for row in Log(tmp_path).rows] == ["a", "b", "c", "d"]


def test_a_repeated_item_and_a_strange_row_are_refused_by_name(tmp_path):
    log = Log(tmp_path)
    log.append(*chunk("a"))
    log.append(*chunk("a"))
    with pytest.raises(DataError, match="item a stands twice in Cell"):
        Log(tmp_path)
    (tmp_path / NAME).write_text('{"arm": "x", "colour": 1}\n{"cost": {}}\n')
    with pytest.raises(DataError, match=rf"{NAME}:1: not a row of an in-context run"):
        Log(tmp_path)
