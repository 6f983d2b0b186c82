"""README and docs: their prose keeps the standard, and what they name exists."""

import re
import shlex
from functools import cache
from pathlib import Path

import prose
import pytest

from lit_mimdit.cli import COMMANDS, TRAINER_COMMANDS
from lit_mimdit.completion import TRAINER_OPTIONS, options_of

ROOT = Path(__file__).parents[1]
MEAN, PER_HUNDRED = 15.0, 1.0  # words a sentence; parentheses for 100 words


def all_pages() -> dict[str, str]:
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("experiments/**/*.md")]
    paths += [*ROOT.glob("benchmarks/*.md"), ROOT / "data" / "README.md"]
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in sorted(paths)}


PAGES = all_pages()


@pytest.mark.parametrize("name", PAGES)
def test_the_prose_keeps_the_standard(name):
    """Also that of docs/reference, which is written from docstrings."""
    page = prose.measure(PAGES[name])
    assert not page.long and not page.crowded, [*page.long, *page.crowded]
    assert page.mean <= MEAN
    # a short page may have one or two
    assert page.parentheses <= 2 or page.per_hundred < PER_HUNDRED + 0.05


def test_prose_is_measured_without_code_tables_and_links():
    text = """# A heading of words

First sentence, with `--code (of any kind)` and a [link](somewhere.md). Second one
goes on (once) over lines (and twice), e.g. here.

| a table (of words) | is none |

- item one
- item two: PSNR 24.1 dB!

```
python -m lit_mimdit fit (no prose)
```
"""
    page = prose.measure(text)
    assert [page.sentences, page.words, page.parentheses] == [4, 25, 2]
    assert len(page.crowded) == 1 and not page.long
    assert len(prose.measure("word " * 25 + ". " + "Word " * 26 + ".").long) == 1


# -- what is named exists


def code_of(text: str) -> list[str]:
    """Lines of code blocks, continued ones joined, and code spans."""
    blocks = re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return lines + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", outside)]


def slug(heading: str) -> str:
    """The anchor of a heading, as MkDocs and GitHub make it."""
    text = re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading)).strip().lower()
    return re.sub(r"\s+", "-", text)


def broken_links(name: str, text: str) -> list[str]:
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if not file.exists():
            broken.append(target)
        elif anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.MULTILINE)
            broken += [target] * (anchor not in map(slug, headings))
    return broken


@cache
def reference_keys() -> set[str]:
    """Every key that docs/reference/ lists."""
    pages = [text for name, text in PAGES.items() if name.startswith("docs/reference/")]
    return set(re.findall(r"^\| `(\w+)` \|", "\n".join(pages), re.MULTILINE))


cached_options = cache(options_of)
TO_WRITE = ("dncnn", "my_study")  # files that a page tells its reader to write


def unknown_words(line: str) -> list[str]:
    """Commands and options of a line that this package does not have."""
    called = re.search(r"(?:python -m lit_mimdit|(?<![\w/-])lit-mimdit)(?: (.*))?$", line)
    if called is None or not called[1]:
        return []
    words = re.split(r" (?:&&|\||;|>|#)", called[1])[0]
    words = shlex.split(words.replace("'", " ")) if words.count('"') % 2 == 0 else words.split()
    if not words or words[0].isupper() or words[0].startswith(("--", "[", "<")):
        return []
    name = next((c for c in COMMANDS if words[: len(c.split())] == c.split()), words[0])
    options = [word.split("=")[0] for word in words if re.match("--?[a-z]", word)]
    if name in COMMANDS:
        known = {*cached_options(*COMMANDS[name][:2]), "-h"}
        return [option for option in options if option not in known]
    if name not in TRAINER_COMMANDS:
        return [] if name == "..." else [name]
    keys = reference_keys()
    return [
        option
        for option in options
        if option not in {*TRAINER_OPTIONS, "-h"}
        and not option.startswith("--trainer.")
        and not (option.startswith(("--model", "--data")) and option.rsplit(".", 1)[-1] in keys)
    ]


def missing_paths(line: str) -> list[str]:
    """Files of the repository that a line names and that are not there."""
    folders = "experiments|docs|benchmarks|notebooks|tests|lit_mimdit"
    named = [Path(f) for f in re.findall(rf"(?<![\w/.~-])((?:{folders})/[\w./-]+\.\w+)", line)]
    real = []
    for file in named:
        own = any(part.startswith(TO_WRITE) for part in file.parts)  # the reader writes it
        if not own and not re.search("[A-Z]{3}", file.stem):
            real.append(file)
    return [f.as_posix() for f in real if not (ROOT / f).exists()]


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    assert not broken_links(name, PAGES[name])


def test_the_first_page_leads_to_every_page_of_the_site():
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = set(re.findall(r"(?<=[ :])[\w/]+\.md$", site, re.MULTILINE)) - {"index.md"}
    linked = set(re.findall(r"\]\(([\w/]+\.md)", PAGES["docs/index.md"]))
    assert len(pages) > 50 and linked == pages


# what was true once stays as it was told
@pytest.mark.parametrize("name", [n for n in PAGES if n != "CHANGELOG.md"])
def test_every_command_and_file_exists(name):
    lines = code_of(PAGES[name])
    assert not [(line, words) for line in lines if (words := unknown_words(line))]
    assert not [path for line in lines for path in missing_paths(line)]


def test_what_is_wrong_is_found():
    assert unknown_words("python -m lit_mimdit restore a.png -o b --tile 64") == []
    assert unknown_words("python -m lit_mimdit restore a.png --tiel 64") == ["--tiel"]
    assert unknown_words("x && lit-mimdit data chek ROOT") == ["data"]
    assert unknown_words("lit-mimdit fit -c a.yaml --model.init_args.branch.width 4") == []
    assert unknown_words("lit-mimdit fit --model.init_args.branch.wdth 4") == [
        "--model.init_args.branch.wdth"
    ]
    assert missing_paths("see tests/test_docs.py and tests/nothing.py") == ["tests/nothing.py"]
    assert broken_links("README.md", "[a](docs/none.md) [b](#nowhere) `[c](d)`") == [
        "docs/none.md",
        "#nowhere",
    ]
