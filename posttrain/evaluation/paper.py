"""Published figures that a table shows for orientation: another model and another task."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """Published figures, in percent."""

    name: str
    t1: float
    t2: float
    delta: float
    fixed: float
    broken: float


PAPER_TITLE = (
    "Published, for orientation only: another model and another task (Gemini 1.5 Flash on MATH500, arXiv 2409.12917, Tables 1 and 2)"
)
PAPER_ROWS = (
    PaperRow(name="Base", t1=52.6, t2=41.4, delta=-11.2, fixed=4.6, broken=15.8),
    PaperRow(name="Self-Refine", t1=52.8, t2=51.8, delta=-1.0, fixed=3.2, broken=4.2),
    PaperRow(name="STaR, D+", t1=53.6, t2=54.0, delta=0.4, fixed=2.6, broken=2.2),
    PaperRow(name="Pair-SFT", t1=52.4, t2=54.2, delta=1.8, fixed=5.4, broken=3.6),
    PaperRow(name="SCoRe", t1=60.0, t2=64.4, delta=4.4, fixed=5.8, broken=1.4),
)
