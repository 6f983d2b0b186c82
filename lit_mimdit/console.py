"""The terminal: text that every console can show, whatever its code page.

A console of Windows with code page 1252 has no arrow and no Chinese letter. Python then raises
UnicodeEncodeError, which would end a command after hours of work.
"""

import codecs
import os
import select
import sys
import unicodedata
from typing import TextIO

HANDLER = "lit_mimdit.readable"
# what the tables and messages of this package hold, in ASCII
PLAIN = {"↑": "^", "↓": "v", "→": "->", "←": "<-", "…": "...", "−": "-", "×": "x", "±": "+/-"}
DASHES = {unicodedata.lookup(name): "-" for name in ("EN DASH", "EM DASH", "HYPHEN")}

STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories that break or steer a line


def readable(character: str) -> str:
    """Returns ASCII for one character: its look where that is plain, its code else.

    A code such as \\u65e5 can be turned back, so no two names look the same.
    """
    if character in PLAIN or character in DASHES:
        return (PLAIN | DASHES)[character]
    name = unicodedata.name(character, "")
    if name.startswith("BOX DRAWINGS"):
        across, down = "HORIZONTAL" in name, "VERTICAL" in name
        return "-" if across and not down else "|" if down and not across else "+"
    if name.endswith("BLOCK") or "EIGHTHS BLOCK" in name:
        return "#"
    return character.encode("ascii", "backslashreplace").decode()


def _handle(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(readable, error.object[error.start : error.end])), error.end


codecs.register_error(HANDLER, _handle)


def printable(text: str) -> str:
    """Returns text in one line: characters that break or steer a console become their codes.

    Names of files may hold line breaks and escape sequences.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in STEERING
        else character
        for character in text
    )


def accept_everything() -> None:
    """Makes stdout and stderr show a character they lack by `readable`, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a notebook's stream has none
        if reconfigure is not None:
            reconfigure(errors=HANDLER)


def nobody_reads() -> bool:
    """Returns whether the reader of stdout has gone, as after `| head`, once all is flushed.

    What is printed then goes to the null device, so that Python's exit has nothing to complain of.
    """
    try:
        sys.stdout.flush()
        gone = _reader_gone(sys.stdout)
    except BrokenPipeError:
        gone = True
    if gone:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    return gone


def _reader_gone(stream: TextIO) -> bool:
    """Returns whether a stream is a pipe that nobody reads.

    A failed write may have emptied its buffer.
    """
    try:
        number = stream.fileno()
    except (OSError, ValueError, AttributeError):  # a notebook's stream has none
        return False
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return any(events & select.POLLERR for _, events in poll.poll(0))
