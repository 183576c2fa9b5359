"""What the documents say can be typed: links lead somewhere, programs, flags and settings exist, Python compiles."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest

from experiments.common import cli, hosts
from experiments.configs import default

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(path):
    """Of headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title).lower()).replace(" ", "-") for title in titles
    }


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.M | re.S)


def commands(path):
    """Command lines of this project in bash blocks, comments and what is piped or chained taken off."""
    for block in blocks(path, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;", re.sub(r"\s#.*$", "", line)):
                yield part.strip()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://") or link.startswith("http://host.robots.ox.ac.uk"):
            continue
        file, _, anchor = link.partition("#")
        path = (document.parent / file).resolve() if file else document
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), f"{link}: there are {sorted(anchors(path))}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_compiles(document):
    for block in blocks(document, "python"):
        compile(block, str(document), "exec")


def defined_flags(module):
    """Names of the flags that a program, or what it shares with others, defines; read, since one process parses one."""
    text = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    for shared, function in re.findall(r"\b(cli|hosts)\.(define_\w+)\(", text):
        text += inspect.getsource(getattr({"cli": cli, "hosts": hosts}[shared], function))
    names = set(re.findall(r"""(?:DEFINE_\w+|define_path)\(\s*"(\w+)\"""", text))
    return names | {f"no{name}" for name in names}


def docstring_commands(path):
    found = re.findall(
        r"^    (python -m experiments\.(?:.*\\\n)*.*)$", ast.get_docstring(ast.parse(path.read_text())), re.M
    )
    return {command.replace("\\\n", " ") for command in found}


PROGRAMS = sorted(
    {
        command
        for document in DOCUMENTS
        for command in commands(document)
        if "-m experiments." in command or "--config." in command
    }
    | {command for config in (ROOT / "experiments").rglob("*.py") for command in docstring_commands(config)}
)


@pytest.mark.parametrize("command", PROGRAMS)
def test_programs_and_settings_exist(command):
    words = shlex.split(command)
    given = {re.match(r"--([\w.]+)", word)[1] for word in words if word.startswith("--")}
    settings = {name.removeprefix("config.") for name in given if name.startswith("config.")}
    names = given - {f"config.{name}" for name in settings} - {"config"}
    if "-m" in words:  # a script of launch/ has options of others before these
        flags = defined_flags(words[words.index("-m") + 1])
        assert names <= flags, names - flags
    for name in settings:
        config = default.get_config()
        for key in name.removeprefix("stage1.").split("."):
            assert key in config, f"--config.{name}: no such setting"
            config = config[key]
    for word in words:
        if word.startswith("--config=") and "NAME" not in word:
            cli.config_file(word.removeprefix("--config="))  # raises InputError


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


def places():
    """Cells of docs/design.md that say where something is."""
    text = (ROOT / "docs/design.md").read_text()
    for title, column in (("The path of a photograph", 0), ("Where to change what", 1)):
        section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
        rows = [row.strip("|").split("|") for row in re.findall(r"^\|.*\|$", section, re.M)][2:]
        assert len(rows) > 10
        yield from (row[column].strip() for row in rows)


@pytest.mark.parametrize("cell", [*places()])
def test_places_in_the_design_exist(cell):
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


def test_scripts_exist():
    scripts = {name for document in DOCUMENTS for c in commands(document) for name in re.findall(r"launch/[\w.]+", c)}
    assert len(scripts) >= 6
    for script in scripts:
        assert (ROOT / script).exists()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_nothing_is_left_to_be_filled_in(document):
    assert not re.findall(r"\b(?:[A-Z]+_TEXT|TO-?DO|TBD)\b", document.read_text())
