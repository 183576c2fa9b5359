"""What the documents say is true: links lead somewhere, commands can be typed, Python runs, the site is complete.

`mkdocs build --strict` checks the rest of the site (continuous integration runs it).
"""

import ast
import contextlib
import importlib.util
import inspect
import io
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from experiments.benchmarks.registry import BENCHMARKS
from experiments.common import cli, hosts
from experiments.common.scripts import COMMANDS
from experiments.configs import default

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = sorted(
    path
    for folder in (ROOT, DOCS, ROOT / "deconvnet_jax")
    for path in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
)
REFERENCE = sorted((DOCS / "reference").glob("*.md"))
PROGRAM_OF = {command: program for program, command in COMMANDS.items()}
with_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def prose(path):
    """The text of a document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.S | re.M)


def anchors(path):
    """Of headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(path), re.M)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title).lower()).replace(" ", "-") for title in titles
    }


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.M | re.S)


@with_document
def test_links_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if link.startswith("https://") or link.startswith("http://host.robots.ox.ac.uk"):
            continue
        file, _, anchor = link.partition("#")
        path = (document.parent / file).resolve() if file else document
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), f"{link}: there are {sorted(anchors(path))}"


@with_document
def test_lists_appear_as_lists_on_the_site(document):
    """GitHub is more lenient: Python-Markdown needs an empty line before a list, and 4 spaces before a nested one."""
    assert not re.findall(r"^(?! *(?:[-*]|\d+\.) )\S.*\n(?:[-*]|\d+\.) .*", prose(document), re.M)
    assert not re.findall(r"^ {1,3}(?:[-*]|\d+\.) .*", prose(document), re.M)


@with_document
def test_nothing_is_left_to_be_filled_in(document):
    assert not re.findall(r"\b(?:[A-Z]+_TEXT|TO-?DO|TBD)\b", document.read_text())


# Python


@with_document
def test_python_compiles(document):
    """All code compiles, and what it imports from this project exists."""
    for block in blocks(document, "python"):
        assert_imports_exist(ast.parse(block, str(document)))


def test_the_notebook_imports_what_exists():
    cells = json.loads((ROOT / "experiments/colab_demo.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    lines = re.findall(r"^ *(from (?:deconvnet_jax|experiments)\S* import .*)$", code, re.M)
    assert lines
    for line in lines:
        assert_imports_exist(ast.parse(line))


def assert_imports_exist(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("deconvnet_jax", "experiments"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                module_of_package = hasattr(module, "__path__") and importlib.util.find_spec(
                    f"{node.module}.{alias.name}"
                )
                assert hasattr(module, alias.name) or module_of_package, f"{node.module} has no {alias.name}"


RUNS = re.compile(r"^<!-- runs -->\n```python\n(.*?)^```\n(?:\s*```text\n(.*?)^```$)?", re.M | re.S)
WITH_RUNS = [document for document in DOCUMENTS if "<!-- runs -->" in document.read_text()]


@pytest.mark.parametrize("document", WITH_RUNS, ids=lambda path: path.name)
def test_python_runs(document, tmp_path, monkeypatch):
    """Blocks after `<!-- runs -->` run one after the other; a block of text that follows is what the code prints."""
    monkeypatch.chdir(tmp_path)
    names = {}
    found = RUNS.findall(document.read_text())
    assert len(found) == document.read_text().count("<!-- runs -->")
    for block, expected in found:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(block, str(document), "exec"), names)
        assert printed.getvalue() == expected


def test_a_page_has_python_that_runs():
    assert WITH_RUNS


# Commands


def split_commands(text):
    """Command lines, without comments; those that are piped or chained count separately."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\|", re.sub(r"(^|\s)#.*$", "", line)):
            if part.strip():
                yield part.strip()


def commands(path):
    """Command lines in blocks, and in the text where they are complete."""
    for block in blocks(path, "bash"):
        yield from split_commands(block)
    for span in re.findall(r"`([^`\n]+)`", prose(path)):
        if re.match(r"(?:python -m experiments\.\w|bash launch/|deconvnet-\w+ )", span) or span.startswith("--config"):
            yield span


def docstring_commands(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    for command in re.findall(r"^    (python -m experiments\.(?:.*\\\n)*.*)$", text, re.M):
        yield command.replace("\\\n", " ")


ALL_COMMANDS = sorted(
    {command for document in DOCUMENTS for command in commands(document)}
    | {command for path in (ROOT / "experiments").rglob("*.py") for command in docstring_commands(path)}
)
OF_THIS_PROJECT = [
    command for command in ALL_COMMANDS if re.search(r"-m experiments\.|--config|launch/\w|\bdeconvnet-[a-z]", command)
]


# Files that a reader makes: "Save this as `tiny.py`".
SAVED = {name for document in DOCUMENTS for name in re.findall(r"[Ss]ave this .*?as `(\w+\.py)`", prose(document))}


def program_of(words):
    """The name of the program in experiments/ that a command starts; None for another program."""
    if "-m" in words and words[words.index("-m") + 1].startswith("experiments."):
        return words[words.index("-m") + 1].removeprefix("experiments.")
    return next((PROGRAM_OF[word] for word in words if word in PROGRAM_OF), None)


def defined_flags(program):
    """Names of the flags that a program, or what it shares with others, defines; read, since one process parses one."""
    text = (ROOT / f"experiments/{program}.py").read_text()
    for shared, function in re.findall(r"\b(cli|hosts)\.(define_\w+)\(", text):
        text += inspect.getsource(getattr({"cli": cli, "hosts": hosts}[shared], function))
    names = set(re.findall(r"""(?:DEFINE_\w+|define_path)\(\s*"(\w+)\"""", text))
    return names | {f"no{name}" for name in names} | {"help", "helpfull"}


def check_setting(name):
    config = default.get_config()
    for key in name.removeprefix("stage1.").split("."):
        assert key in config, f"--config.{name}: no such setting"
        config = config[key]


@pytest.mark.parametrize("command", OF_THIS_PROJECT)
def test_a_command_can_be_typed(command):
    """Its program, flags, settings, config and benchmark exist."""
    words = [word for word in shlex.split(command) if word != "..."]
    given = {re.match(r"--([\w.]+)", word)[1] for word in words if re.match(r"--\w", word)}
    settings = {name.removeprefix("config.") for name in given if name.startswith("config.")} - {"KEY", "stage1.KEY"}
    for name in settings:
        check_setting(name)
    for word in words:
        name = word.removeprefix("--config=")
        if word.startswith("--config=") and name and not re.search("[A-Z]{3}", name) and name not in SAVED:
            cli.config_file(name)  # raises InputError
    program = program_of(words)
    if program:
        unknown = {name for name in given if not name.startswith("config.")} - {"config"} - defined_flags(program)
        assert not unknown, unknown
    if program == "benchmark" and "NAME" not in words:
        after = words[words.index("-m") + 2 :] if "-m" in words else words[1:]
        assert {word for word in after if re.fullmatch(r"[a-z_]+", word)} <= {"all", *BENCHMARKS}
    scripts = [word for word in words if word.startswith("launch/")]
    for script in scripts:
        assert (ROOT / script).exists(), script
    configs = [word for word in words if re.fullmatch(r"(?:voc|coco128)_\w+", word)]
    if scripts and "--config" not in command.split(scripts[0])[0]:
        for name in configs:
            cli.config_file(name)


def test_commands_are_found():
    assert len(OF_THIS_PROJECT) > 60
    assert {program_of(shlex.split(command)) for command in OF_THIS_PROJECT} >= {*COMMANDS}
    assert len({name for command in ALL_COMMANDS for name in re.findall(r"launch/[\w.]+", command)}) >= 6


def test_every_requirements_file_exists():
    files = {name for command in ALL_COMMANDS for name in re.findall(r"-r ([\w/.-]+\.txt)", command)}
    assert files
    for name in files:
        assert (ROOT / name).exists(), name


# Places in the code


def defined(node):
    """Names that a module or class defines; those in a class as Class.name."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield child.name
        if isinstance(child, ast.ClassDef):
            yield from (f"{child.name}.{name}" for name in defined(child))
        for target in getattr(child, "targets", [getattr(child, "target", None)]):
            if isinstance(target, ast.Name):
                yield target.id


def rows(text):
    """Cells of the tables in a text, a list for each row, without the headers."""
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        for row in table.splitlines()[2:]:
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("|"))]


def places():
    """Cells of docs/design.md and docs/paper_map.md that say where something is."""
    text = (DOCS / "design.md").read_text()
    for title, column in (("The path of a photograph", 0), ("Where to change what", 1)):
        section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
        found = [row[column] for row in rows(section)]
        assert len(found) > 10
        yield from found
    found = [row[2] for row in rows((DOCS / "paper_map.md").read_text())]
    assert len(found) > 30
    yield from found


@pytest.mark.parametrize("cell", [*places()])
def test_places_in_the_code_exist(cell):
    """Every path is whole, and the names after it are defined there."""
    path = None
    for token in re.findall(r"`(.+?)`", cell):
        if "/" in token or (ROOT / token).is_file():
            path = next(ROOT.glob(token), None)
            assert path, f"{token}: no such file"
        else:
            assert path, f"{token}: expected a path from the repository's root"
            text = path.read_text()
            known = defined(ast.parse(text)) if path.suffix == ".py" else text
            assert token in known, f"{token}: not in {path}"


# The site


class _Loader(yaml.SafeLoader):
    """Loader that ignores the values of tags for Python objects."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def site_settings():
    return yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)


def nav_pages(entry):
    if isinstance(entry, str):
        yield entry
    else:
        for child in entry if isinstance(entry, list) else entry.values():
            yield from nav_pages(child)


def test_the_navigation_has_every_page_once():
    listed = [*nav_pages(site_settings()["nav"])]
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", REFERENCE, ids=lambda path: path.stem)
def test_the_reference_has_every_public_name_once(page):
    package = "deconvnet_jax" if page.stem == "index" else f"deconvnet_jax.{page.stem}"
    shown = re.findall(r"^::: (\S+)$", page.read_text(), re.M)
    assert all(name.startswith(f"{package}.") for name in shown)
    assert sorted(name.rpartition(".")[2] for name in shown) == sorted(importlib.import_module(package).__all__)


def test_the_reference_has_every_subpackage():
    packages = {path.parent.name for path in (ROOT / "deconvnet_jax").glob("*/__init__.py")}
    assert {page.stem for page in REFERENCE} == packages | {"index"}


def test_requirements_of_the_site_are_those_of_the_extra():
    pinned = re.findall(r"^([\w-]+)==", (DOCS / "requirements.txt").read_text(), re.M)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert sorted(pinned) == sorted(re.match(r"[\w-]+", requirement)[0] for requirement in extras["docs"])


def test_pictures_are_those_that_the_script_draws():
    script = DOCS / "pictures/draw.py"
    specification = importlib.util.spec_from_file_location("draw", script)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    drawn = module.pictures()
    assert set(drawn) == {path.name for path in script.parent.glob("*.svg")}
    for name, text in drawn.items():
        assert (script.parent / name).read_text() == text, f"{name}: run python docs/pictures/draw.py"
