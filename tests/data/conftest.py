"""What the tests of the COCO import share: annotations with photographs, and the import of them."""

import functools

import pytest
from coco_files import import_content, write_photographs


@pytest.fixture
def source(tmp_path, rng):
    """The content of a JSON file, whose photographs lie in tmp_path/photos."""
    return write_photographs(tmp_path, rng)


@pytest.fixture
def load(tmp_path):
    """A function that writes a JSON file and imports it into tmp_path/out."""
    return functools.partial(import_content, tmp_path)
