"""Tests that bars and colours reach terminals only, also where FORCE_COLOR claims that everything is a terminal."""

import io
import re
import sys
from pathlib import Path

import pytest
from rich.progress import BarColumn
from rich.table import Table

from deconvnet_jax import terminal
from deconvnet_jax.training.metric_writer import Progress

ROOT = Path(__file__).parents[1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def forced(monkeypatch):
    """The environment of a notebook's programs, whose output is a pipe."""
    for name in ("JPY_PARENT_PID", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")


def show_everything():
    """Uses all displays of the package."""
    with terminal.ProgressBar("drawing scenes") as bar:
        for done in range(1, 31):
            bar.update(done, 30)
    assert list(terminal.followed("abc", "segmenting", "abc")) == list("abc")
    with terminal.live_display(BarColumn()) as display:
        display.add_task("compiling", total=None)
    scalars = {"loss": 1.0, "pixel_accuracy": 0.5, "learning_rate": 0.1}
    with Progress(0, 20) as progress:
        progress.update(10, scalars)
        progress.update(20, scalars)
        progress.evaluated(20, {"mean_iou": 0.5})
    table = Table("class", "IoU", title="scores")
    table.add_row("cat", "0.5")
    terminal.console(stderr=True).print(table)
    terminal.console(stderr=True).print("[bold]bold[/bold]")


def test_a_pipe_gets_plain_lines(capsys):
    show_everything()
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert "\r" not in text
    assert "drawing scenes 30/30\n" in text
    assert "segmenting 3/3\n" in text
    assert "step 20/20  loss 1.000  accuracy 0.500  learning rate 0.1  0:00:00 left\n" in text
    assert len(text.splitlines()) < 20


def test_a_terminal_gets_bars(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    show_everything()
    assert "\x1b[" in stream.getvalue()


def test_a_notebook_is_no_terminal(monkeypatch):
    """Commands after an exclamation mark see a pseudo-terminal; what they print is kept as text."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    show_everything()
    assert "\x1b" not in stream.getvalue()


def test_lines_are_rare(capsys, monkeypatch):
    """At most one per tenth of the work and ten seconds; the last one always comes."""
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    with terminal.ProgressBar("evaluating") as bar:
        for done in range(1, 1001):
            now += 1 / 16  # a tenth takes 6.25 seconds
            bar.update(done, 1000)
    counts = [f"evaluating {done:,}/1,000" for done in (160, 320, 480, 640, 800, 960, 1000)]
    assert capsys.readouterr().err.splitlines() == counts
    now = 0.0
    with terminal.ProgressBar("reading") as bar:  # The total is unknown, and every item takes 6 seconds.
        for done in range(1, 6):
            now += 6
            bar.update(done, None)
    assert capsys.readouterr().err.splitlines() == ["reading 2", "reading 4"]


def test_a_hidden_bar_prints_nothing(capsys):
    with terminal.ProgressBar("evaluating", shown=False) as bar:
        bar.update(1, 1)
    assert not capsys.readouterr().err


def test_everything_uses_these_displays():
    """A display that the library makes by itself believes FORCE_COLOR."""
    own = re.compile(r"rich\.console import|rich import print|rich\.progress import .*\b(Progress|track)\b|\bConsole\(")
    found = [path for folder in ("deconvnet_jax", "experiments") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in found if own.search(path.read_text())] == ["terminal.py"]
