"""The page: one HTML file that needs no network and runs no script but its own.

What models wrote never enters the markup. It stands as JSON, gzipped and in base64, and becomes text nodes; a content-security policy
allows the page's own scripts by their hashes, and trusted types forbid every way from a string to markup or code.
"""

import base64
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from posttrain.evaluation.page import glyphs, reading
from posttrain.evaluation.page.reading import Reading
from posttrain.evaluation.section import Cell, Section
from posttrain.run import write_atomic

HERE = Path(__file__).parent
ASSETS = HERE.parent / "assets"
APP = ("dom", "text", "diff", "plots", "store", "episode", "reader", "main")


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Everything on a page, in the order it is shown."""

    title: str
    kind: str
    """A few words above the title."""
    lede: str
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
    reading: Reading
    reading_text: str
    provenance: tuple[tuple[str, str], ...]
    """(what, value), as they stand."""
    hero: tuple[tuple[str, Cell], ...] = ()
    """(name, figure), large, for a page about one thing."""


def write(path: Path, page: Page) -> None:
    """Replace `path` by the page, atomically; raises `OSError`."""
    maths, code = reading.needs(page.reading.items)
    libraries = ["diff", "uplot", *(["katex"] if maths else []), *(["highlight"] if code else [])]
    app = "".join(_script(HERE / "app" / f"{name}.js") for name in APP)
    scripts = [*(_script(ASSETS / f"{name}.js") for name in libraries), f"(() => {{\n{app}}})();\n"]
    styles = [ASSETS / "inter.css", ASSETS / "uplot.css", *([ASSETS / "katex.css"] if maths else []), HERE / "style.css"]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string((HERE / "page.html").read_text()).render(
        page=page,
        sections=[_section(i, section) for i, section in enumerate(page.sections)],
        style=Markup("".join(style.read_text() for style in styles)),
        scripts=[Markup(script) for script in scripts],
        hashes=Markup(" ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)),
        plots=_json([[asdict(plot) for plot in section.plots] for section in page.sections]),
        chunks=_data(page.reading) if page.reading.items else {},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)


def _data(shown: Reading) -> dict[str, str]:
    """Element id -> packed data."""
    data = {"index": reading.packed(reading.index(shown))}
    data |= {f"chunk{k}": chunk for k, chunk in enumerate(reading.chunks(shown))}
    if any(attempt.prompt_ids for item in shown.items for attempt in item.attempts):
        data |= {f"tokens{k}": chunk for k, chunk in enumerate(reading.token_chunks(shown))}
        data["pieces"] = reading.packed([_pieces(shown, model) for model in range(len(shown.models))])
    return data


def _pieces(shown: Reading, model: int) -> dict[int, str] | None:
    if not shown.pieces or (pieces := shown.pieces[model]) is None:
        return None
    turns = [attempt for item in shown.items if item.model == model for attempt in item.attempts]
    return pieces.table(token for attempt in turns for token in (*attempt.prompt_ids, *attempt.ids))


def _section(number: int, section: Section) -> dict[str, Any]:
    """What the template draws of it; charts are drawn by the page itself from the data of the same number."""
    cells = [cells for _, cells in section.rows if cells]
    columns = range(max(map(len, cells), default=0))
    scales = [glyphs.scale_of([drawn for row in cells if i < len(row) and (drawn := row[i].drawn)]) for i in columns]
    rows = [(name, [_cell(each, scale) for each, scale in zip(row, scales)]) for name, row in section.rows]
    groups = list(dict.fromkeys(plot.group for plot in section.plots))
    return {
        "id": f"part{number}",
        "number": number,
        "section": section,
        "head": [Markup("<br>").join(word.split("\n")) for word in section.head],
        "rows": rows,
        "groups": [(name, [i for i, plot in enumerate(section.plots) if plot.group == name]) for name in groups],
        "flows": [(flow.name, Markup(glyphs.flow(flow))) for flow in section.flows],
    }


def _cell(cell: Cell, scale: tuple[float, float]) -> dict[str, Any]:
    glyph = Markup(glyphs.interval(cell.drawn, scale, cell.tone)) if cell.drawn else ""
    return {"value": cell.value, "interval": cell.interval, "tone": cell.tone, "glyph": glyph}


def _script(path: Path) -> str:
    """A script as it may stand in the page: nothing in it ends its element early."""
    text = path.read_text()
    assert not any(bad in text.lower() for bad in ("</script", "<!--", "\r")), f"{path} cannot stand in a page"
    return text


def _json(value: Any) -> Markup:
    """For a script element of data: no character in it can end the element."""
    return Markup(json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))
