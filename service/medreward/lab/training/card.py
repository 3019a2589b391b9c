"""What was measured as tables, for the terminal and for the model's card."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Figures = Mapping[str, Any]
CONSTRUCTED: Final = (
    "All pairs are constructed by rule, on public images and on drawn phantoms; no physician graded an answer. "
    "It is no medical device, and its scores are no clinical advice."
)
INTERVALS: Final = (
    "Shares stand with Wilson's 95% interval, which takes pairs as independent; those of one image are not. "
    "The other intervals draw whole images anew."
)


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def card(name: str, version: str, provenance: str, found: Figures | None) -> str:
    parts = [f"# {name} {version}", f"{provenance}.", CONSTRUCTED]
    if found is None:
        return "\n\n".join([*parts, "Nothing was measured when this model was exported."]) + "\n"
    data = found["data"]
    said = f"Measured as exported, on {data['pairs']} pairs of {data['images']} development images. {INTERVALS}"
    return "\n\n".join([*parts, said, *map(_markdown, tables(found))]) + "\n"


def tables(found: Figures) -> Iterator[Table]:
    yield _pairs("Pairs right, by kind", "kind", {kind: by["all"]["all"] for kind, by in found["pairs"].items()})
    for kind, by in found["pairs"].items():
        for sort in ("set", "form", "question"):
            if sort in by:
                yield _pairs(f"Kind {kind}, by {sort}", sort, by[sort])
    yield _pairs("Accuracy on phantoms, taught and held out from training", "what", found["phantoms"])
    yield _calibration(found["calibration"])
    yield _uncertainty(found["uncertainty"])
    yield _length(found["length"])
    yield _meaning(found["meaning"])
    if "out_of_scope" in found:
        rows = [[sort, _share(share)] for sort, share in found["out_of_scope"].items()]
        note = "The threshold is set on the development images, so that their share shows nothing."
        yield Table("Flagged as out of scope", ["images", "flagged"], rows, note)
    yield _size(found["size"], found["latency_ms"])


def _pairs(title: str, first: str, figures: Figures) -> Table:
    columns = [first, "with the image", "image blanked", "gain by the image, points", "n"]
    rows = [
        [name, _share(one["seen"]), _share(one["blank"]), _points(one["gain"]), str(one["seen"]["n"])]
        for name, one in figures.items()
    ]
    return Table(title, columns, rows)


def _calibration(figures: Figures) -> Table:
    errors = ("error_across_halves", "error")
    rows = [
        [name, *(f"{one[error]:.3f}" for error in errors), str(one["n"]), ", ".join(map(_bin, one["bins"]))]
        for name, one in figures.items()
    ]
    columns = [
        "dimension",
        "expected calibration error, across halves",
        "as served",
        "n",
        "predicted/observed (n) as served, in ten bins",
    ]
    note = (
        "Across halves: each half of the images at the temperature that the other half asks for. "
        "What is served has the temperatures of all these images, so that its own error flatters."
    )
    return Table("Win rates, predicted and observed", columns, rows, note)


def _bin(one: Figures) -> str:
    return f"{_percent(one['predicted'])}/{_percent(one['observed']['share'])} ({one['observed']['n']})"


def _uncertainty(figures: Figures) -> Table:
    rows = [
        [
            *(_share(part["wrong"]) for part in figures["quartiles"]),
            *[""] * (4 - len(figures["quartiles"])),
            _number(figures["ranked"]),
        ]
    ]
    columns = ["least", "second quarter", "third quarter", "most", "ranked"]
    note = (
        "Uncertainty as served, the mean of both answers. "
        "Ranked: how often a pair that is wrong has more of it than one that is right; 0.5 tells nothing."
    )
    return Table("Accuracy pairs wrong, by uncertainty", columns, rows, note)


def _length(figures: Figures) -> Table:
    named = {"all": "all", "worded": "said in more words", "padded": "neutral sentences added"}
    rows = [
        [named[name], f"{one['r']:.3f} ({one['low']:.3f} to {one['high']:.3f})", f"{100 * one['slope']:.3f}", _n(one)]
        for name, one in figures.items()
    ]
    columns = ["forms of the right answer", "r within questions", "reward by 100 characters", "n"]
    return Table("Reward and length where the content is the same", columns, rows)


def _meaning(figures: Figures) -> Table:
    rows = [
        [name, _number(one["median"]), _number(one["p90"]), _share(one["below_error"]), _n(one["below_error"])]
        for name, one in figures["changes"].items()
    ]
    error = figures["real_error"]
    rows.append(["a real error", _number(error["median"]), _number(error["p90"]), "", ""])
    columns = ["change", "reward moves by, median", "90th percentile", "less than the real error", "n"]
    return Table("Changes that keep the meaning", columns, rows)


def _size(size: Figures, latency: Figures) -> Table:
    rows = [
        ["graphs and tokenizer", f"{size['bytes'] / 1e6:.1f} MB"],
        ["parameters", f"{size['parameters'] / 1e6:.2f} M"],
        *([f"{name.replace('_', ' ')}, one thread", f"{value:.1f} ms"] for name, value in latency.items()),
    ]
    return Table("Size, and time from pixels and ids to logits", ["what", "median"], rows)


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    written = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"## {table.title}\n\n{written}" + (f"\n\n{table.note}" if table.note else "")


def _share(share: Figures) -> str:
    return f"{_percent(share['share'])}% ({_percent(share['low'])} to {_percent(share['high'])})"


def _points(gain: Figures) -> str:
    return f"{_percent(gain['gain'])} ({_percent(gain['low'])} to {_percent(gain['high'])})"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _n(one: Figures) -> str:
    return str(one["n"])
