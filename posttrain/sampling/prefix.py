"""Which prompts begin alike, and how far: a tree of prefixes, each to be read once by whoever keeps keys and values."""

from collections.abc import Iterator, Sequence

from posttrain.types import TokenIds

LEAST_SHARED = 32  # tokens: a shorter common part costs less to read again than to keep apart


def common_length(a: TokenIds, b: TokenIds, known: int = 0) -> int:
    """How many tokens `a` and `b` begin with in common; the first `known` are known to be. Compares slices: tokens one by one are slow."""
    low, high = known, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def shared_prefixes(rows: Sequence[TokenIds], least: int = LEAST_SHARED) -> list[tuple[int, list[int]]]:
    """(length of a prefix, the rows to read behind it): each row once, in an order in which prefixes grow and shrink as a tree is walked.

    A prefix is worth keeping where at least two rows share `least` tokens more than the prefix before it. Length 0: rows that share none.
    """
    found: list[tuple[int, list[int]]] = []
    branches = [(sorted(range(len(rows)), key=lambda i: rows[i]), 0)] if rows else []
    while branches:
        branch, depth = branches.pop()
        own: list[int] = []
        deeper: list[tuple[list[int], int]] = []
        todo = [(branch, depth)]
        while todo:
            some, known = todo.pop()
            for alike in _by_token(some, rows, known):
                shared = common_length(rows[alike[0]], rows[alike[-1]], known)  # sorted: what first and last share, all share
                if len(alike) > 1 and shared - depth >= least:
                    deeper.append((alike, shared))
                elif len(alike) == 1 or shared == known:
                    own += alike
                else:
                    todo.append((alike, shared))
        if own:
            found.append((depth, own))
        branches += sorted(deeper, key=lambda pair: rows[pair[0][0]], reverse=True)
    return found


def _by_token(some: Sequence[int], rows: Sequence[TokenIds], at: int) -> Iterator[list[int]]:
    """Runs of rows with the same token at place `at`, or ending there."""
    run: list[int] = []
    for i in some:
        if run and rows[run[0]][at : at + 1] != rows[i][at : at + 1]:
            yield run
            run = []
        run.append(i)
    yield run
