"""docs/how_to/troubleshooting.md quotes messages that the code has."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how_to" / "troubleshooting.md"
QUOTED = re.findall(r"^\*\*`(.+)`\*\*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
# words of jsonargparse, Lightning and PyTorch
OTHERS = ("Parser key", "No supported gpu backend", "CUDA out of memory")
# the example values of a message; what is between them is the code's
VALUES = re.compile(
    r"\.\.\.|'[^']*'|\S*[/\d]\S*|\S+\.(?:png|ckpt|jsonl?|csv):?|\b(?:and|sampling)\b"
)


@pytest.fixture(scope="module")
def source() -> str:
    """The whole package, in which the pieces of a string over several lines are one."""
    text = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "lit_mimdit").rglob("*.py"))
    )
    text = re.sub(r"\{[^{}]*\}", "{}", re.sub(r'"\s*\n\s*f?"', "", text))
    return " ".join(text.replace("`", "").split())


def test_the_page_quotes_twenty_messages():
    assert len(QUOTED) >= 20


@pytest.mark.parametrize("message", [m for m in QUOTED if not m.startswith(OTHERS)])
def test_a_quoted_message_is_in_the_code(message, source):
    pieces = [piece.strip(" ;:,.") for piece in VALUES.split(message.replace("`", ""))]
    pieces = [piece for piece in pieces if len(piece.split()) >= 2]
    assert pieces
    missing = [piece for piece in pieces if piece not in source]
    assert not missing, missing
