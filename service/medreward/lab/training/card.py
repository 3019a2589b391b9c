"""What was measured as tables, for the terminal and for the model's card."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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


WORDS: Final = """## Words

- **uncertainty** of a dimension: 1 where nothing speaks for or against an answer, and less the more does. For
  `accuracy` and `overall` it is taken from how far the answer agrees with what the model would answer by itself. It is
  no probability of error; the table of uncertainty tells what it is worth.
- **out of scope**: what the vision tower makes of the image lies further from the images that were learnt from, or
  further towards drawn pictures of the world outside, than that of 997 in 1,000 development images.
- **blanked by grey**: the image is replaced by a plain grey one of its size. **no image**: `image: null`.
- **ruse**: what a policy may write in place of knowing. **form**: the same answer as a program or a page writes it.
- **reading**: tokens of a run, as long as the manifest's `[reading]` says, that stood in the answer before are not read
  again. A long answer is read in parts, and those that answer the question weigh most."""


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def card(name: str, version: str, provenance: str, found: Figures | None, labels: str = CONSTRUCTED) -> str:
    """Returns the card's text; `labels` says where the labels come from that the figures stand on."""
    parts = [f"# {name} {version}", f"{provenance}.", labels]
    if found is None:
        return "\n\n".join([*parts, "Nothing was measured when this model was exported."]) + "\n"
    data = found["data"]
    said = f"Measured as exported, on {data['pairs']} pairs of {data['images']} development images. {INTERVALS}"
    return "\n\n".join([*parts, said, WORDS, *map(_markdown, tables(found))]) + "\n"


def tables(found: Figures) -> Iterator[Table]:
    """Yields a table for each part that was measured."""
    if "dimensions" in found:
        yield _pairs("Pairs right, by dimension", "dimension", found["dimensions"])
        yield _pairs("Pairs right, all dimensions, by organ", "organ", found["organs"])
    if "pairs" in found:
        yield _pairs("Pairs right, by kind", "kind", {kind: by["all"]["all"] for kind, by in found["pairs"].items()})
        for kind, by in found["pairs"].items():
            for sort in ("set", "form", "question"):
                if sort in by:
                    yield _pairs(f"Kind {kind}, by {sort}", sort, by[sort])
    if "phantoms" in found:
        yield _pairs("Accuracy on phantoms, taught and held out from training", "what", found["phantoms"])
    for name, table in PARTS.items():
        if name in found:
            yield table(found[name])
    if "size" in found:
        yield _size(found["size"], found["latency_ms"])


def _pairs(title: str, first: str, figures: Figures) -> Table:
    columns = [first, "with the image", "image blanked by grey", "gain by the image, points", "no image", "n"]
    rows = [
        [
            name,
            _share(one["seen"]),
            _share(one["blank"]) if "blank" in one else "-",
            _points(one["gain"]) if "gain" in one else "-",
            _share(one["no_image"]) if "no_image" in one else "-",
            str(one["seen"]["n"]),
        ]
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


def _ruses(figures: Figures) -> Table:
    wrong = figures["wrong"]
    rows = [["plain wrong", "", _number(wrong["mean"]), _share(wrong["ahead"]), "", _n(wrong["ahead"])]]
    rows += [
        [
            name,
            "other wordings" if one["taught"] else "nothing of the kind",
            *(_number(one["mean"]), _share(one["ahead"]), _points(one["above_wrong"]), _n(one["ahead"])),
        ]
        for name, one in figures["families"].items()
    ]
    columns = [
        "what is written",
        "training saw",
        "mean reward",
        "beats the right answer",
        "more than plain wrong does, points",
        "n",
    ]
    note = (
        f"The mean reward of the right answer is {figures['right']:.3f}. "
        "No wording here was learnt from; a tie counts half."
    )
    return Table("Ruses against the right answer", columns, rows, note)


def _forms(figures: Figures) -> Table:
    rows = [["plain", "", _share(figures["plain"]), "", "", _n(figures["plain"])]]
    rows += [
        [
            name.replace("|", "\\|"),
            "this form" if one["taught"] else "others",
            _share(one["beats_plain_wrong"]),
            _share(one["beats_wrong_in_form"]),
            _number(one["moved"]),
            _n(one["beats_plain_wrong"]),
        ]
        for name, one in figures["forms"].items()
    ]
    columns = ["form", "training saw", "right in it beats plain wrong", "beats wrong in it"]
    columns += ["moves right by, standard deviations", "n"]
    return Table("Forms that must not matter", columns, rows)


def _climb(figures: Figures) -> Table:
    rows = [
        [
            str(one["step"]),
            f"{_percent(one['accuracy'])}% {'#' * round(20 * one['accuracy'])}",
            _number(one["reward"]),
            f"{one['characters']:.0f}",
        ]
        for one in figures["way"]
    ]
    kept = ", ".join(f"{name} {count}" for name, count in figures["kept"].items()) or "none"
    note = (
        f"On {figures['questions']} questions, half begun with the right answer. Each step changes one answer (swap "
        "the fact, paraphrase, repeat, append, another form, say both) and keeps what is rewarded more. "
        f"Edits kept at the end: {kept}."
    )
    return Table(
        "A policy that climbs this reward", ["step", "says what is true", "mean reward", "mean characters"], rows, note
    )


def _long(figures: Figures) -> Table:
    rows = [[length, _share(one["kept"]), _n(one["kept"])] for length, one in figures.items()]
    note = "Pairs whose order is right when short, each claim in front, in the middle and behind."
    return Table("Order kept in long answers", ["tokens around the claim", "kept", "n"], rows, note)


def _out_of_scope(figures: Figures) -> Table:
    rows = [[sort, _share(share)] for sort, share in figures.items()]
    note = "The threshold is set on the development images, so that their share shows nothing."
    return Table("Flagged as out of scope", ["images", "flagged"], rows, note)


def _order(figures: Figures) -> Table:
    rows = [[f"{figures['moved']:.1e}", str(figures["n"])]]
    return Table("Both answers of a pair change places", ["most that a logit moves", "pairs"], rows)


def _size(size: Figures, latency: Figures) -> Table:
    rows = [
        ["graphs and tokenizer", f"{size['bytes'] / 1e6:.1f} MB"],
        ["parameters", f"{size['parameters'] / 1e6:.2f} M"],
        *([f"{name.replace('_', ' ')}, one thread", f"{value:.1f} ms"] for name, value in latency.items()),
    ]
    title = "Size, and time from pixels and ids to logits" if latency else "Size"  # no time on a busy machine
    return Table(title, ["what", "median"], rows)


#: The tables of further parts, by the part's name, in the order of a card.
PARTS: Final[Mapping[str, Callable[[Figures], Table]]] = {
    "calibration": _calibration,
    "uncertainty": _uncertainty,
    "order": _order,
    "length": _length,
    "meaning": _meaning,
    "ruses": _ruses,
    "forms": _forms,
    "long": _long,
    "climb": _climb,
    "out_of_scope": _out_of_scope,
}


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
