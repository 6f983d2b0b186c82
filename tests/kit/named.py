"""What the pages of README and docs name: commands, options, keys, files and links."""

import ast
import re
import shlex
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml

from lit_mimdit.cli import COMMANDS, TRAINER_COMMANDS
from lit_mimdit.completion import TRAINER_OPTIONS, options_of

ROOT = Path(__file__).parents[2]


def all_pages() -> dict[str, str]:
    """Every page that is written for readers, by its path."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("experiments/**/*.md")]
    paths += [*ROOT.glob("benchmarks/*.md"), ROOT / "data" / "README.md"]
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in sorted(paths)}


PAGES = all_pages()
COMMAND = re.compile(
    r" {4,}(\$ )?([A-Z_]+=\S+ )*(python3?|pip|lit-mimdit|pytest|mkdocs|tensorboard|torchrun|sbatch|"
    r"hf|aws|apt-get|mkdir|cp) "
)


def unfenced(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^ *```.*?^ *``` *$", "", text, flags=re.DOTALL | re.MULTILINE)


def code_of(text: str) -> list[str]:
    """Lines of code blocks, continued ones joined, and code spans."""
    blocks = re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    return lines + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", unfenced(text))]


def indented_commands(text: str) -> list[str]:
    """Commands in blocks that are indented and not fenced: `code_of` does not see them."""
    return [line for line in unfenced(text).splitlines() if COMMAND.match(line)]


def slug(heading: str) -> str:
    """The anchor of a heading, as MkDocs and GitHub make it."""
    text = re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading)).strip().lower()
    return re.sub(r"\s+", "-", text)


def broken_links(name: str, text: str) -> list[str]:
    """Targets of a page's links that are not there."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", unfenced(text))):
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
def keys_of(page: str) -> dict[str, dict[str, str]]:
    """The tables of a page of docs/reference/: its headings, and the type of each key below."""
    headings = re.split("^## ", PAGES[f"docs/reference/{page}.md"], flags=re.MULTILINE)[1:]
    row = re.compile(r"^\| `(\w+)` \| ((?:[^|\\]|\\.)*) \|", re.MULTILINE)
    return {text.split("\n")[0]: dict(row.findall(text)) for text in headings}


def leads_on(path: list[str], keys: dict[str, str]) -> bool:
    """Whether a path of keys begins in a table and goes on in those that its types link to."""
    kind = keys.get(path[0])
    if kind is None or len(path) == 1 or "mapping" in kind:  # of names that one chooses
        return kind is not None
    linked = re.findall(r"\[(\w+)\]\(settings\.md#", kind)
    return any(leads_on(path[1:], keys_of("settings")[name]) for name in linked)


def named_system(line: str) -> str:
    """The class of the model that the YAMLs of a command give; else an empty word."""
    found = ""
    for file in re.findall(r"(?:-c|--config) (\S+\.yaml)", line):
        values = yaml.safe_load((ROOT / file).read_text()) if (ROOT / file).exists() else {}
        found = (values.get("model") or {}).get("class_path", found).rpartition(".")[-1]
    return found


def unknown_keys(line: str) -> list[str]:
    """Keys of model, data and trainer, by their whole path, that the reference does not have."""
    unknown = []
    for part, page in (("model", "systems"), ("data", "data_modules")):
        tables, system = keys_of(page), named_system(line)
        # a data module hands on to another what that one takes
        known = [tables[system]] if system in tables else [*tables.values()]
        for path in re.findall(rf"(?<![\w.]){part}\.init_args\.(\w+(?:\.\w+)*)", line):
            if not any(leads_on(path.split("."), keys) for keys in known):
                unknown.append(f"{part}.init_args.{path}")
    trainer = re.findall(r"--trainer\.(\w+)", line)
    return unknown + [f"trainer.{key}" for key in trainer if key not in trainer_keys()]


@cache
def trainer_keys() -> set[str]:
    """The arguments of Lightning's Trainer, read without the seconds of an import."""
    (folder,) = find_spec("lightning").submodule_search_locations
    tree = ast.parse((Path(folder) / "pytorch" / "trainer" / "trainer.py").read_text())
    (trainer,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Trainer")
    (start,) = (f for f in trainer.body if getattr(f, "name", "") == "__init__")
    return {argument.arg for argument in start.args.args + start.args.kwonlyargs} - {"self"}


@cache
def script_options(file: Path) -> set[str]:
    """The options of a script of this repository: its parser's, or the words that it looks for."""
    nodes = [*ast.walk(ast.parse(file.read_text()))]
    calls = [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    added = [word for call in calls if call.func.attr == "add_argument" for word in call.args]
    words = {n.value for n in added or nodes if isinstance(n, ast.Constant)}
    return {w for w in words if isinstance(w, str) and w.startswith("-")} | {"-h", "--help"}


def unknown_script_options(line: str) -> list[str]:
    """Options that the script of a line does not have."""
    called = re.search(r"(?<![\w/])((?:benchmarks|docs|experiments|tests)/[\w/]+\.py)( .*)", line)
    if called is None or not (ROOT / called[1]).exists() or "pytest" in line[: called.start()]:
        return []
    words = re.split(r" (?:&&|\||;|>|#)|;", called[2])[0].split()
    options = [word.split("=")[0] for word in words if re.match("--?[a-z]", word)]
    return [option for option in options if option not in script_options(ROOT / called[1])]


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
    parts = ("--model.", "--data.", "--trainer.")  # `unknown_keys` looks at them
    known = {*TRAINER_OPTIONS, "-h", "--model", "--data", "--model.class_path", "--data.class_path"}
    return [o for o in options if o not in known and not re.match("|".join(parts), o)]


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
