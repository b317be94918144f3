"""Token ids as text, from the tokenizer file of the model that was evaluated, where that is still on this machine. Nothing is fetched."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tokenizer.json"


@dataclass(frozen=True)
class Pieces:
    """A tokenizer, read for showing what ids say."""

    tokenizer: "Tokenizer"

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)

    def table(self, ids: Iterable[int]) -> dict[int, str]:
        """Each id's own text; a part of a character, or a word's leading space that decoding drops, as the vocabulary writes it."""
        return {i: self._piece(i) for i in sorted(set(ids))}

    def _piece(self, token: int) -> str:
        alone, raw = self.tokenizer.decode([token], skip_special_tokens=False), self.tokenizer.id_to_token(token) or ""
        if not alone or "\ufffd" in alone:
            return raw
        return f" {alone}" if raw.startswith("▁") and not alone.startswith(" ") else alone


def pieces_of(model: str, run: Path) -> Pieces | None:
    """Of the model as it was recorded: its folder, else that of the run that made it, else the hub's cache; None where none has it."""
    from tokenizers import Tokenizer

    name = model.rpartition(" (weights ")[0] or model
    places = [Path(name) / FILE, run / "model" / FILE]
    found = next((place for place in places if place.is_file()), None) or _cached(name)
    try:
        return Pieces(Tokenizer.from_file(str(found))) if found else None
    except Exception:  # the library raises bare Exception on a file it cannot read; a page without pieces is still a page
        return None


def _cached(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, FILE) if name.count("/") == 1 else None
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
