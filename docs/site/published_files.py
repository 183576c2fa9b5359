"""Hook of MkDocs: publishes the files outside docs/ that pages link to, and leads the links there.

On GitHub a page may link to any file of the repository, such as ../experiments/configs/default.py. The site has the
pages in docs/ alone, so each linked file becomes a page under source/: Markdown as it is, everything else as a listing.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?P<after>\))")
LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "bash", ".yaml": "yaml", ".json": "json", ".ipynb": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for every file or folder that is linked to and that the site does not have.

    Args:
      files: the files of the site so far.
      config: the settings of mkdocs.yml.

    Returns:
      `files`, with the new pages.
    """
    root = Path(config.config_file_path).parent
    pages = [file for file in files if file.is_documentation_page()]
    waiting = [(f"docs/{file.src_uri}", file.content_string) for file in pages]
    while waiting:
        origin, text = waiting.pop()
        for target in _local_targets(text, origin):
            place = _place(target, root)
            if files.get_file_from_path(place) or not (root / target).exists():
                continue  # MkDocs warns of links that lead nowhere
            content = _content(root, target)
            files.append(File.generated(config, place, content=content, inclusion=InclusionLevel.NOT_IN_NAV))
            waiting.append((target, content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replaces links to files of the repository by links to their pages.

    Args:
      markdown: the text of the page.
      page: the page.
      config: the settings of mkdocs.yml.
      files: the files of the site; unused.

    Returns:
      The new text.
    """
    root = Path(config.config_file_path).parent
    origin = _origin(page.file.src_uri)

    def lead(match: re.Match) -> str:
        target = _local_target(match["target"], origin)
        if target is None or not (root / target).exists():
            return match[0]
        place = posixpath.relpath(_place(target, root), posixpath.dirname(page.file.src_uri) or ".")
        return f"{match['before']}{place}{match['anchor'] or ''}{match['after']}"

    return _outside_code(markdown, lambda text: LINK.sub(lead, text))


def _place(target: str, root: Path) -> str:
    """Returns where the site has a file of the repository, as a path in docs/."""
    path = root / target
    if target.startswith("docs/") and path.is_file():
        return target.removeprefix("docs/")
    return f"source/{target}" if path.suffix == ".md" else f"source/{target}.md"


def _origin(place: str) -> str:
    """Returns which file of the repository a page shows; links in the page are relative to it."""
    return place.removeprefix("source/") if place.startswith("source/") else f"docs/{place}"


def _content(root: Path, target: str) -> str:
    """Returns the page that shows a file, or the list of a folder's files."""
    path = root / target
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir() if child.is_file())
        return f"# {target}\n\n" + "".join(f"- [{name}]({path.name}/{name})\n" for name in names)
    text = path.read_text()
    if path.suffix == ".md":
        return text
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"# {target}\n\n{fence}{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"


def _local_targets(text: str, origin: str) -> list[str]:
    """Returns the files of the repository that a text links to."""
    found: list[str | None] = []
    _outside_code(
        text, lambda part: found.extend(_local_target(m["target"], origin) for m in LINK.finditer(part)) or ""
    )
    return [target for target in found if target]


def _local_target(link: str, origin: str) -> str | None:
    """Returns the path in the repository that a link in the file `origin` names; None for addresses."""
    if re.match(r"[a-z]+:", link):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    return None if path.startswith("..") else path


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    """Applies a function to the parts of a Markdown text that are not blocks of code."""
    parts = re.split(r"(^(?:```|~~~).*?^(?:```+|~~~+)$)", text, flags=re.M | re.S)
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))
