"""Writes the numbers of `experiments.gpu_report` as Markdown: an overview, then the tables of every benchmark."""

from collections.abc import Callable
from typing import Any

from .harness import OURS, THEIRS, Numbers, Table, number
from .parts import FAILED, FINISHED
from .registry import BENCHMARKS, Benchmark
from .repeat import verdict


def markdown(report: Numbers) -> str:
    """Returns the text of report.md with the results so far.

    Args:
      report: "started" (UTC, ISO 8601), "seconds" since then, "width" of the network, and "parts": the outcomes by name
        (`parts.PartRunner`). A part's name is the benchmark's name, optionally followed by "_" and a suffix.
    """
    parts = report["parts"]
    numbers = {name: outcome["numbers"] for name, outcome in parts.items() if outcome["numbers"]}
    known = numbers.get("environment", {})
    device = known.get("nvidia_smi", {}).get("name") or known.get("device", "an unknown device")
    sections = [f"# Measured on {device}", heading(report, known), overview(parts)]
    for name, found in numbers.items():
        benchmark = BENCHMARKS.get(kind(name))
        if benchmark:
            sections += [f"## {parts[name]['title']}", shown(all_tables, benchmark, found)]
        elif name == "prediction":
            sections += [f"## {parts[name]['title']}", shown(prediction, found, numbers.get("train_bfloat16"))]
    return "\n\n".join(sections) + "\n"


def kind(part: str) -> str:
    """Returns the name of a part's benchmark: its own name up to the first "_"."""
    return part.partition("_")[0]


def all_tables(benchmark: Benchmark, numbers: Numbers) -> str:
    """Returns the tables of a benchmark as Markdown.

    Args:
      benchmark: the row of BENCHMARKS.
      numbers: the result of its `run`.
    """
    return "\n\n".join(table(each) for each in benchmark.module.tables(numbers))


def shown(text_of: Callable[..., str], *arguments: Any) -> str:
    """Calls a function that makes a text; if it fails, returns the reason instead.

    A part with unexpected numbers must not end the run of the other parts.

    Args:
      text_of: the function.
      *arguments: of the function.
    """
    try:
        return text_of(*arguments)
    except Exception as error:  # The numbers may have any form.
        return f"not shown ({type(error).__name__}: {error}); the numbers are in report.json"


def heading(report: Numbers, environment: Numbers) -> str:
    """Returns the line with start and duration, and warnings for a narrow network or a CPU.

    Args:
      report: as for `markdown`.
      environment: numbers of the benchmark "environment"; empty if it did not finish.
    """
    lines = [f"Started {report['started']}; {report['seconds']:.0f} seconds so far."]
    if report["width"] != 1:
        lines.append(f"**Rehearsal: all layers are {report['width']:g} times as wide as the original's.**")
    if environment.get("platform", "gpu") != "gpu":
        lines.append(f"**No GPU: these numbers were measured on the {environment['platform'].upper()}.**")
    return " ".join(lines)


def overview(parts: Numbers) -> str:
    """Returns a table of all parts with status, time and main result, and the commands of those that did not finish."""
    rows = []
    for name, outcome in parts.items():
        found = [shown(summary, kind(name), outcome["numbers"])] if outcome["numbers"] else []
        if outcome["error"]:
            found.append(f"`{outcome['error']}`" if outcome["status"] == FAILED else outcome["error"])
        rows.append(
            [outcome["title"], outcome["status"], f"{outcome['seconds']:.0f}", f"`{name}.log`", "; ".join(found)]
        )
    again = [outcome["command"] for outcome in parts.values() if outcome["status"] != FINISHED]
    commands = "Commands of the parts that did not finish:\n\n```bash\n" + "\n".join(again) + "\n```"
    of_parts = table(Table("", ("part", "status", "seconds", "log", "result"), rows))
    return f"{of_parts}\n\n{commands if again else 'All of these parts finished.'}"


def summary(kind: str, numbers: Numbers) -> str:
    """Returns the main result of a part in a few words; of several comparisons, the first one.

    Args:
      kind: name of the benchmark, or "tests" or "prediction".
      numbers: of the part.
    """
    if kind == "environment":
        return f"{numbers['device']}, JAX {numbers['versions']['jax']}"
    if kind == "tests":
        failures = ", ".join(f"`{test}`" for test in numbers["failures"][:3])
        counts = ", ".join(f"{numbers[word]} {word}" for word in ("passed", "failed", "skipped"))
        return f"{counts}{': ' + failures if failures else ''}"
    if kind == "repeat":
        return verdict(numbers)
    if kind == "prediction":
        bound = 1000 * numbers["step"]["bound_seconds"]
        return f"at least {bound:.3g} ms per step of {numbers['batch_per_device']} images"
    if kind == "input":
        found, ratio = f"{number(numbers['crops_per_second'][OURS])} crops/s", numbers["ratio"][OURS]
    else:
        result = numbers["stages"]["total"] if kind == "infer" else next(iter(numbers["results"].values()))
        ratio = result["ratio"].get(THEIRS) if kind == "unpool" else result["ratio"]
        if "seconds" in result:
            found = f"{number(1000 * result['seconds'][OURS]['median'])} ms"
        else:
            found = f"{number(result['images_per_second'][OURS]['median'])} images/s"
    return f"{found}, {ratio['median']:.3g} times as fast as {numbers['alternative']}" if ratio else found


def prediction(numbers: Numbers, measured: Numbers | None) -> str:
    """Returns a Markdown table of the compiler's bounds for a step and the measured time.

    Args:
      numbers: of `experiments.compile --json`.
      measured: of the part "train_bfloat16"; None if it did not finish.
    """
    compiled = numbers["step"]
    names = {
        "arithmetic_seconds": "arithmetic at the GPU's peak rate",
        "memory_seconds": "memory traffic at the GPU's bandwidth",
        "bound_seconds": "bound: the longer of both for each instruction",
    }
    rows = [[title, f"{1000 * compiled[key]:.3g}", ""] for key, title in names.items()]
    peak = f"{compiled['memory']['total_bytes'] / 1e9:.1f} GB of memory as compiled"
    if measured:
        (result,) = measured["results"].values()
        seconds = measured["batch_size"] / result["images_per_second"][OURS]["median"]
        rows.append(["measured", f"{1000 * seconds:.3g}", f"{seconds / compiled['bound_seconds']:.3g}"])
        used = result["peak_bytes"][OURS]
        peak += f", {used / 1e9:.1f} GB measured" if used else ""
    images = numbers["batch_per_device"]
    title = f"A step of {images} images, bfloat16; {peak}. The bound is that of the program that XLA scheduled."
    return table(Table(title, ("", "milliseconds", "times the bound"), rows))


def table(content: Table) -> str:
    """Returns a table as Markdown, with its title above it."""
    rows = [content.columns, ["---"] * len(content.columns), *content.rows]
    text = "\n".join(
        "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in row) + " |" for row in rows
    )
    return f"{content.title}\n\n{text}" if content.title else text
