"""README and docs: their prose keeps the standard, what they name exists, nothing is said twice."""

import re
from itertools import pairwise

import prose
import pytest
from kit.named import (
    PAGES,
    ROOT,
    broken_links,
    code_of,
    indented_commands,
    missing_paths,
    unfenced,
    unknown_keys,
    unknown_script_options,
    unknown_words,
)

MEAN, PER_HUNDRED = 15.0, 1.0  # words a sentence; parentheses for 100 words


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
    for unknown in (unknown_words, unknown_keys, unknown_script_options, missing_paths):
        assert not [(line, words) for line in lines if (words := unknown(line))]
    assert not indented_commands(PAGES[name])


def test_what_is_wrong_is_found():
    assert unknown_words("python -m lit_mimdit restore a.png -o b --tile 64") == []
    assert unknown_words("python -m lit_mimdit restore a.png --tiel 64") == ["--tiel"]
    assert unknown_words("x && lit-mimdit data chek ROOT") == ["data"]
    assert unknown_words("lit-mimdit fit -c a.yaml --model.init_args.branch.width 4") == []
    assert unknown_words("lit-mimdit fit -c a.yaml --modle.init_args.branch.width 4") == [
        "--modle.init_args.branch.width"
    ]
    assert missing_paths("see tests/test_docs.py and tests/nothing.py") == ["tests/nothing.py"]
    assert broken_links("README.md", "[a](docs/none.md) [b](#nowhere) `[c](d)`") == [
        "docs/none.md",
        "#nowhere",
    ]


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("--model.init_args.branch.width 4 --data.init_args.crop 8 --trainer.max_steps 1", []),
        ("--model.init_args.optimizer.lr_scale.router 2", []),
        ("set `model.init_args.branch.wdth`", ["model.init_args.branch.wdth"]),
        # a key of another table, a path that ends too late, another system's key
        ("--model.init_args.branch.lr 4", ["model.init_args.branch.lr"]),
        ("--model.init_args.init.width 4", ["model.init_args.init.width"]),
        (
            "fit -c experiments/quickstart.yaml --model.init_args.n_groups 4",
            ["model.init_args.n_groups"],
        ),
        ("fit -c experiments/systems/airnet.yaml --model.init_args.n_groups 4", []),
        ("--data.init_args.corp 4", ["data.init_args.corp"]),
        ("--trainer.max_step 4 --trainer.logger.init_args.name a", ["trainer.max_step"]),
    ],
)
def test_keys_are_known_by_their_whole_path(line, unknown):
    assert unknown_keys(line) == unknown


def test_options_of_scripts_are_known_by_their_parsers():
    assert unknown_script_options("python benchmarks/train_step.py --steps 15") == []
    assert unknown_script_options("python benchmarks/train_step.py --step 15 | tee a") == ["--step"]
    assert unknown_script_options("python docs/tools/reference.py --check") == []
    assert unknown_script_options("python benchmarks/attention.py --rounds 2") == ["--rounds"]


def test_indented_commands_are_found():
    text = "Do this:\n\n    python a.py\n\n- an item\n    of python, goes on\n"
    assert indented_commands(text) == ["    python a.py"]
    assert not indented_commands("```\nfor a in b; do\n    python a.py\ndone\n```\n")


def test_diagrams_of_the_site_are_drawn(monkeypatch):
    """The theme draws a `pre` of the class mermaid; what else highlights code shows its text."""
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    pytest.importorskip("material")
    from markdown import Markdown
    from mkdocs.config import load_config

    site = load_config(str(ROOT / "mkdocs.yml"))
    page = Markdown(extensions=site.markdown_extensions, extension_configs=site.mdx_configs)
    drawn = {name: text for name, text in PAGES.items() if "```mermaid" in text}
    assert len(drawn) > 10 and all(name.startswith("docs/") for name in drawn)
    for text in drawn.values():
        html = page.reset().convert(text)
        assert html.count('<pre class="mermaid"><code>') == text.count("```mermaid")
        assert "language-mermaid" not in html


# -- nothing is said twice

OWN = ("README.md", "data/", "docs/", "experiments/README.md", "experiments/nano/")


def statements(text: str) -> list[str]:
    """The sentences of 8 words or more of a page, and the rows with figures of its tables."""
    said = [
        one
        for paragraph in prose.paragraphs(text)
        for one in prose.sentences(paragraph.replace("`", ""))
        if len(one.split()) >= 8
    ]
    lines = [line.strip() for line in unfenced(text).splitlines()] + [""]
    for line, below in pairwise(lines):
        head = below.startswith("|") and not re.search(r"\w", below)
        if line.startswith("|") and re.search(r"\d", line) and not head:
            said.append(line)
    return [" ".join(re.sub("[*`]", "", one).lower().split()) for one in said]


def repeated(pages: dict[str, str]) -> list[str]:
    """What stands in two places, with both of them."""
    seen: dict[str, str] = {}
    twice = []
    for name, text in pages.items():
        for one in statements(text):
            if one in seen:
                twice.append(f"{seen[one]} and {name}: {one}")
            seen[one] = name
    return twice


def test_no_statement_stands_in_two_places():
    """A page links to the one that has it. The reference repeats what classes share."""
    assert not repeated(
        {
            name: text
            for name, text in PAGES.items()
            if name.startswith(OWN) and not name.startswith("docs/reference/")
        }
    )


def test_what_stands_twice_is_found():
    row, head = "| a `x` | 1.5 |\n", "| in 2 | GiB |\n|---|---:|\n"
    code = "```\nthe same code may well stand here and there\n```\n"
    one = f"Short is free here.\n\n{head}{row}\n{code}"
    other = f"Short is free here.\n\n{head}| **a** x |  1.5 |\n\n{code}"
    assert repeated({"a.md": one, "b.md": other}) == ["a.md and b.md: | a x | 1.5 |"]
    said = "This `sentence` has more\nthan eight words in it. And [this](a.md) ends.\n"
    assert len(repeated({"a.md": said, "b.md": said.replace("`", "")})) == 1
    assert not repeated({"a.md": said, "b.md": said.replace("eight", "nine")})
    assert len(repeated({"a.md": said, "b.md": said.upper()})) == 1
    shown = f"```\n{row}```\n"
    assert not repeated({"a.md": shown, "b.md": shown})
