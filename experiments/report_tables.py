"""The numbers of `experiments.gpu_report` as Markdown."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from experiments.benchmarks import crf, infer
from experiments.benchmarks.train import OURS, THEIRS
from experiments.benchmarks.unpool import GENERAL
from experiments.parts import FAILED, FINISHED

Numbers = dict[str, Any]


def markdown(report: Numbers) -> str:
    """Returns the report as far as it is known.

    Args:
      report: "started" (UTC, ISO 8601), "seconds", "width" and "parts", the outcomes by name (`parts.Outcome`).
    """
    parts = report["parts"]
    numbers = {name: outcome["numbers"] for name, outcome in parts.items() if outcome["numbers"]}
    known = numbers.get("environment", {})
    device = known.get("nvidia_smi", {}).get("name") or known.get("device", "an unknown device")
    sections = [f"# Measured on {device}", heading(report), overview(parts)]
    trained = {name: value for name, value in numbers.items() if name.startswith("train_")}
    if trained:
        sections += ["## Training step", shown(training, trained)]
    for name, (title, table_of) in SECTIONS.items():
        if name in numbers:
            sections += [f"## {title}", shown(table_of, numbers[name])]
    repeated = {name: numbers[name] for name in ("repeat_deterministic", "repeat") if name in numbers}
    if repeated:
        sections += ["## The same training twice", shown(repetition, repeated)]
    if "prediction" in numbers:
        sections += ["## Prediction and measurement", shown(prediction, numbers)]
    if known:
        sections += ["## Environment", shown(environment, known)]
    return "\n\n".join(sections) + "\n"


def shown(text_of: Callable[..., str], *numbers: Any) -> str:
    """Returns the text of a function, or what is missing: one part's numbers must not end the run of the others."""
    try:
        return text_of(*numbers)
    except Exception as error:  # of whatever form the numbers are
        return f"not shown ({type(error).__name__}: {error}); the numbers are in report.json"


def heading(report: Numbers) -> str:
    """Returns when and with what it was measured."""
    lines = [f"Started {report['started']}; {report['seconds']:.0f} seconds so far."]
    if report["width"] != 1:
        lines.append(f"**A rehearsal: all layers are {report['width']:g} times as wide as the original's.**")
    known = (report["parts"].get("environment") or {}).get("numbers") or {}
    if known.get("platform", "gpu") != "gpu":
        lines.append(f"**Not a GPU: the numbers are those of the {known['platform'].upper()}.**")
    return " ".join(lines)


def overview(parts: Numbers) -> str:
    """Returns every part with its status, time and the first thing to know."""
    rows = []
    for name, outcome in parts.items():
        found = shown(summary, name, outcome["numbers"]) if outcome["numbers"] else ""
        if outcome["error"]:
            error = f"`{outcome['error']}`" if outcome["status"] == FAILED else outcome["error"]
            found = "; ".join(text for text in (found, error) if text)
        rows.append([outcome["title"], outcome["status"], f"{outcome['seconds']:.0f}", f"`{name}.log`", found])
    return table(["part", "status", "seconds", "log", "result"], rows) + "\n\n" + again(parts)


def again(parts: Numbers) -> str:
    """Returns the commands of parts that did not finish."""
    commands = [outcome["command"] for outcome in parts.values() if outcome["status"] != FINISHED]
    if not commands:
        return "All of these finished."
    return "To run alone what did not finish:\n\n```bash\n" + "\n".join(commands) + "\n```"


def summary(name: str, numbers: Numbers) -> str:
    """Returns the result of a part in a few words."""
    if name == "environment":
        return f"{numbers['device']}, JAX {numbers['versions']['jax']}"
    if name == "tests":
        failures = ", ".join(f"`{test}`" for test in numbers["failures"][:3])
        counts = ", ".join(f"{numbers[word]} {word}" for word in ("passed", "failed", "skipped"))
        return f"{counts}{': ' + failures if failures else ''}"
    if name.startswith("repeat"):
        return "equal bit for bit" if numbers["equal"] else f"different{since(numbers)}"
    if name.startswith("train_"):
        (result,) = numbers["results"].values()
        return speed(result, numbers)
    if name == "forward":
        return "; ".join(f"{size} images: {speed(result, numbers)}" for size, result in numbers["results"].items())
    if name == "unpool":
        size, result = next(iter(numbers["results"].items()))
        return f"{size}: {duration(result)}{times(result['ratio'].get(THEIRS), numbers)}"
    if name in ("infer", "crf"):
        result = numbers["stages"]["total"] if name == "infer" else numbers["results"]["released"]
        return f"{duration(result)} per photograph{times(result['ratio'], numbers)}"
    if name == "prediction":
        bound = 1000 * numbers["step"]["bound_seconds"]
        return f"at least {bound:.3g} ms per step of {numbers['batch_per_device']} images"
    if name == "input":
        return f"{numbers['crops_per_second'][OURS]:,.0f} crops/s{times(numbers['ratio'][OURS], numbers)}"
    return ""


def since(numbers: Numbers) -> str:
    """Returns from which step on the losses of two runs differ."""
    first = numbers["first_step_that_differs"]
    return f"; losses from step {first} on" if first else "; losses are equal, variables are not"


def duration(result: Numbers) -> str:
    """Returns the median time of ours."""
    return f"{number(1000 * result['seconds'][OURS]['median'])} ms"


def speed(result: Numbers, numbers: Numbers) -> str:
    """Returns images per second and the ratio to the alternative."""
    return f"{number(result['images_per_second'][OURS]['median'])} images/s{times(result['ratio'], numbers)}"


def times(ratio: Numbers | None, numbers: Numbers) -> str:
    """Returns ", N times as fast as the alternative" with its name, or nothing without one."""
    return f", {ratio['median']:.3g} times as fast as {numbers['alternative']}" if ratio else ""


def training(parts: Numbers) -> str:
    """Returns one table of all training steps."""
    rows = []
    for numbers in parts.values():
        for dtype, result in numbers["results"].items():
            rows += rows_of_sides(f"{dtype}, {numbers['batch_size']} images", result, numbers, numbers["rates"][dtype])
    numbers = list(parts.values())
    return against(numbers[0]) + table(
        ["step of", "side", "images/s", "TFLOP/s", "of a product's", "memory", "times as fast", "run as"], rows
    )


def rows_of_sides(label: str, result: Numbers, numbers: Numbers, rates: Numbers) -> Iterable[list[str]]:
    """Yields a row for each side of a comparison in images per second."""
    for side, rate in result["images_per_second"].items():
        flops = rate["median"] * numbers["gflop_per_image"] * 1e9
        peak = result["peak_bytes"][side]
        yield [
            *(label, side, spread(rate), f"{flops / 1e12:.3g}", f"{100 * flops / rates['flops']:.0f} %"),
            f"{peak / 1e9:.1f} GB" if peak else "-",
            "1" if side == THEIRS else ratio_text(result["ratio"]),
            result["mode"][side],
        ]


def forward(numbers: Numbers) -> str:
    """Returns the table of the forward pass."""
    rows: list[list[str]] = []
    for size, result in numbers["results"].items():
        rows += rows_of_sides(f"{size} images", result, numbers, numbers["rates"])
    columns = ["", "side", "images/s", "TFLOP/s", "of a product's", "times as fast", "run as"]
    return against(numbers) + table(columns, [[*row[:5], *row[6:]] for row in rows])


def inference(numbers: Numbers) -> str:
    """Returns the stages from a photograph to labels, and the CRF after them."""
    rows = [
        [stage, *milliseconds(result, infer.THEIRS), ratio_text(result["ratio"])]
        for stage, result in numbers["stages"].items()
    ]
    after = numbers["crf"]
    rows.append([f"CRF (the other: {crf.THEIRS})", *milliseconds(after, crf.THEIRS), ratio_text(after["ratio"])])
    with_crf = sum(result["seconds"][OURS]["median"] for result in (numbers["stages"]["total"], after))
    text = (
        f"A photograph of {numbers['image'][0]}x{numbers['image'][1]}, {numbers['proposals']} proposals, "
        f"{numbers['batch_size']} at once, float32 (TF32 on a GPU). With CRF: {number(1000 * with_crf)} ms.\n\n"
    )
    return against(numbers) + text + table(["milliseconds", OURS, infer.THEIRS, "times as fast"], rows)


def crf_table(numbers: Numbers) -> str:
    """Returns the table of the CRF alone."""
    rows = []
    for preset, result in numbers["results"].items():
        equal = "-" if result["agreement"] is None else f"{result['agreement']:.4f} %"
        rows.append([preset, *milliseconds(result, crf.THEIRS), ratio_text(result["ratio"]), equal])
    return against(numbers) + table(["milliseconds", OURS, crf.THEIRS, "times as fast", "equal labels"], rows)


def unpooling(numbers: Numbers) -> str:
    """Returns the table of pooling and unpooling."""
    rows = []
    for size, result in numbers["results"].items():
        ratio = ratio_text(result["ratio"].get(THEIRS))
        rows.append([size, *milliseconds(result, GENERAL, THEIRS), ratio])
    text = f"{numbers['batch_size']} images, float32, forward and backward.\n\n"
    return against(numbers) + text + table(["milliseconds", OURS, GENERAL, THEIRS, "times as fast as PyTorch"], rows)


def pipeline(numbers: Numbers) -> str:
    """Returns the table of the input pipeline."""
    rows = [
        [name, f"{rate:,.0f}", ratio_text(numbers["ratio"].get(name)) if name in numbers["ratio"] else "1"]
        for name, rate in numbers["crops_per_second"].items()
    ]
    return f"{numbers['cores']} cores.\n\n" + table(
        ["stage-2 crops of 500x375 JPEGs", "crops/s", "times as fast"], rows
    )


def repetition(parts: Numbers) -> str:
    """Returns what became of two runs of the same training, with and without options of XLA."""
    rows = [
        [numbers["xla_flags"] or "default", numbers["dtype"], "yes" if numbers["equal"] else f"no{since(numbers)}"]
        for numbers in parts.values()
    ]
    one = next(iter(parts.values()))
    text = f"Two processes, each compiling for itself, take {one['steps']} steps of {one['batch_size']} images.\n\n"
    return text + table(["XLA_FLAGS", "dtype", "equal bit for bit"], rows)


def prediction(numbers: Numbers) -> str:
    """Returns the compiler's bounds for a step beside the measured one."""
    compiled = numbers["prediction"]["step"]
    names = {
        "arithmetic_seconds": "arithmetic at the card's peak",
        "memory_seconds": "memory traffic at the card's bandwidth",
        "bound_seconds": "bound: for every instruction the longer of both",
    }
    rows = [[title, f"{1000 * compiled[key]:.3g}", ""] for key, title in names.items()]
    peak = f"{compiled['memory']['total_bytes'] / 1e9:.1f} GB of memory as compiled"
    measured = numbers.get("train_bfloat16")
    if measured:
        (result,) = measured["results"].values()
        seconds = measured["batch_size"] / result["images_per_second"][OURS]["median"]
        rows.append(["measured", f"{1000 * seconds:.3g}", f"{seconds / compiled['bound_seconds']:.3g}"])
        used = result["peak_bytes"][OURS]
        peak += f", {used / 1e9:.1f} GB measured" if used else ""
    images = numbers["prediction"]["batch_per_device"]
    text = f"A step of {images} images, bfloat16; {peak}. The bound is from the program as XLA scheduled it.\n\n"
    return text + table(["", "milliseconds", "times the bound"], rows)


def environment(numbers: Numbers) -> str:
    """Returns device, driver and versions."""
    rows = []
    for name, value in numbers.items():
        entries = value.items() if isinstance(value, dict) else [(name, value)]
        for key, entry in entries:
            text = f"{entry / 1e9:.1f} GB" if key.endswith("_bytes") else str(entry)
            rows.append([key.removesuffix("_bytes").replace("_", " "), text])
    return table(["", ""], rows)


def milliseconds(result: Numbers, *others: str) -> list[str]:
    """Returns the time of ours and of others, or "-" for one that is not there."""
    found = [result["seconds"].get(name) for name in (OURS, *others)]
    return [spread({key: 1000 * value for key, value in of_side.items()}) if of_side else "-" for of_side in found]


def spread(values: Numbers) -> str:
    """Returns median and range as text."""
    return f"{number(values['median'])} ({number(values['min'])} to {number(values['max'])})"


def number(value: float) -> str:
    """Returns three digits of a number, or all of those before its point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def ratio_text(ratio: Numbers | None) -> str:
    """Returns a ratio with its range, or "-"."""
    return spread(ratio) if ratio else "-"


def against(numbers: Numbers) -> str:
    """Returns a line that names the alternative, or why there is none."""
    return f"Compared with {numbers['alternative'] or 'nothing: ' + str(numbers['no_alternative'])}.\n\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(escape(str(cell)) for cell in line) + " |" for line in lines)


def escape(text: str) -> str:
    """Returns a text that does not end a cell of a table."""
    return text.replace("|", "/").replace("\n", " ")


SECTIONS = {
    "infer": ("Photograph to labels", inference),
    "crf": ("Dense CRF", crf_table),
    "unpool": ("Pooling and unpooling", unpooling),
    "forward": ("Forward pass", forward),
    "input": ("Input pipeline", pipeline),
}
