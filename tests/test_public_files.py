"""Files that a public project is known by: they fit their schemas, and agree with each other and with the package."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import deconvnet_jax

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.github-issue-forms": FORMS,
    "vendor.github-issue-config": [ROOT / ".github/ISSUE_TEMPLATE/config.yml"],
    "vendor.dependabot": [ROOT / ".github/dependabot.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}


def loaded(path):
    return yaml.safe_load((ROOT / path).read_text())


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_fit_their_schema(schema):
    assert SCHEMAS[schema]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, SCHEMAS[schema])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_versions_agree():
    newest = re.search(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    citation = loaded("CITATION.cff")
    assert newest[1] == citation["version"] == deconvnet_jax.__version__
    assert newest[2] == str(citation["date-released"])


def test_every_supported_python_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", name) for name in project["classifiers"])
    supported = [found[1] for found in names if found]
    matrix = loaded(".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix == {"python": supported, "jax": ["oldest", "newest"]}
    assert project["requires-python"] == f">={supported[0]}"


def test_commands_of_workflows_exist():
    texts = [path.read_text() for path in WORKFLOWS]
    scripts = {name for text in texts for name in re.findall(r"\blaunch/\w+\.sh", text)}
    assert scripts >= {"launch/test.sh", "launch/build.sh"}
    files = scripts | {name for text in texts for name in re.findall(r"-r (\S+\.txt)", text)}
    missing = [name for name in files if not (ROOT / name).is_file()]
    assert not missing
    versions = {"oldest", "newest", "nightly"}
    assert all(any(re.search(rf"\bjax: .*\b{name}\b", text) for text in texts) for name in versions)
    known = (ROOT / "launch/install.sh").read_text()
    assert all(f"  {name}) jax=(" in known for name in versions)


def test_hooks_use_the_versions_of_the_tests():
    hooks = [hook for repo in loaded(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    pins = (ROOT / "tests/requirements.txt").read_text().splitlines()
    used = {pin for hook in hooks for pin in hook["additional_dependencies"] if "pre-commit-hooks" not in pin}
    assert used
    assert used <= set(pins)


def test_the_wheel_can_be_built_without_a_package_index():
    """`tests/test_packaging.py` builds it with what the tests' requirements install, in a new environment too."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    lines = (ROOT / "tests/requirements.txt").read_text().splitlines()
    pins = {pin.name: pin for pin in map(Requirement, (line for line in lines if not line.startswith("#")))}
    assert needed
    for each in map(Requirement, needed):
        (version,) = pins[each.name].specifier
        assert each.specifier.contains(version.version)
