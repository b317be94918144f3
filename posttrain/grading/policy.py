"""What counts as the same answer where mathematics alone does not say: named choices with defaults."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class MathPolicy:
    """The defaults suit references like those of MATH and GSM8K, graded on what the answer says rather than on how it is dressed."""

    units: Literal["lenient", "required"] = "lenient"
    """lenient: a unit may be missing on either side, and words that are no known unit are passed over; required: both must have it."""
    percent: Literal["either", "value"] = "either"
    """either: 28% is 28 and 0.28 (the question tells which is meant); value: it is 0.28 only."""
    degrees: Literal["either", "value"] = "either"
    """either: 30 degrees are 30 and pi/6; value: they are pi/6 only."""
    list_order: Literal["free", "kept"] = "free"
    """free: "1, 2" is "2, 1", as solutions come in any order; kept: it is not. Tuples always keep theirs."""
    assignment: Literal["dropped", "required"] = "dropped"
    """dropped: "x = 5" is "5"; required: a reference with a name needs an answer with it."""
    gold_digits: int = 3
    """A decimal reference of at least so many significant digits is a rounded one: an exact answer need only round to it."""
    answer_digits: int = 6
    """A decimal answer of at least so many significant digits to an exact reference may be rounded: 1.41421 for a root of 2, not 1.414."""
    mixed_numbers: bool = True
    """A whole number before a proper fraction is added to it (True), or multiplied (False)."""
    thousands: bool = True
    """1,234 may be one number (True), or is always two (False)."""
    decimal_comma: bool = True
    """1,22 may be 1.22 where the other side is a decimal."""
    choices: bool = True
    """(B) is B, and "B. the text" is B."""


DEFAULT = MathPolicy()
