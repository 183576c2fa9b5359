"""Extension of Griffe, which reads docstrings for the site: two of our sections differ from what Griffe expects.

- `Example:` is renamed to `Examples:`. Griffe would show the lines of a section in the singular as quotations.
- The text of `Returns:` and `Yields:` gets a colon in front. Without it, Griffe takes what stands before the first
  colon of the text for a type, but our types are in the annotations.
"""

import re

from griffe import Extension, Object


class DocstringSections(Extension):
    """Extension that rewrites the sections before Griffe parses them."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Rewrites the sections in the docstring of one module, class, function or attribute."""
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
            obj.docstring.value = re.sub(r"^((?:Returns|Yields):\n +)", r"\1: ", text, flags=re.M)
