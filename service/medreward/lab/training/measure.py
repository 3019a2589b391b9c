"""What a model is worth, on dev pairs and phantoms: the evidence that its card shows.

Each part names the rows it wants the logits of, and says what they tell; all are asked at once.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from medreward.artifacts.manifest import Manifest
from medreward.encoding.image import probe
from medreward.errors import ConfigurationError
from medreward.lab.training import figures, probes
from medreward.lab.training.calibrate import FEWEST, across_halves
from medreward.lab.training.climb import climb
from medreward.lab.training.dev import Dev, read_dev_pairs
from medreward.lab.training.evaluate import ahead_by, wins, won
from medreward.lab.training.images import LIMITS, png
from medreward.lab.training.phantom_pairs import PHANTOMS, SEEN, PhantomPair, phantom_pairs
from medreward.lab.training.ruses import FORMS, RUSES, TAUGHT, formed, thought
from medreward.lab.training.served import Ask, Picture, Progress, Row, Served
from medreward.lab.training.size import latency, size
from medreward.lab.training.strangers import strangers
from medreward.types import DIMENSIONS

SIX: Final = len(DIMENSIONS)
PROBED: Final = 120  # of the accuracy pairs, whose answers are said otherwise
LONG: Final = (500, 1000, 2000, 4000)  # tokens around a claim
KEPT_LONG: Final = 24  # pairs that are made long
GREY: Final = 128
SAME: Final = 1e-6  # rewards nearer than this are alike
ANYTHING: Final = ("What does this image show?", "A finding.")
Logits = NDArray[np.float32]  # rows, heads, columns


@dataclass(frozen=True, slots=True)
class Part:
    rows: list[Row]
    tell: Callable[[Logits], dict[str, Any]]


def measure_folder(
    folder: Path, manifest: Manifest, data: Path, progress: Progress, phantoms: int = PHANTOMS
) -> dict[str, Any]:
    if manifest.dimensions != DIMENSIONS:
        raise ConfigurationError(f"{manifest.name} has not all six dimensions, and what is measured here is on each")
    dev = read_dev_pairs(data)
    served = Served(folder, manifest, progress=progress)
    found = {
        "model": {"name": manifest.name, "version": manifest.version, "fingerprint": manifest.fingerprint},
        **measure(served, dev, phantom_pairs(phantoms), manifest.weights),
        "size": size(folder, manifest),
        "latency_ms": latency(folder, manifest),
    }
    short: dict[str, Any] = rounded(found)
    return short


def measure(
    ask: Ask, dev: Sequence[Dev], phantoms: Sequence[PhantomPair], weights: Mapping[str, float]
) -> dict[str, Any]:
    decisive = [one for one in dev if one.pair.kind == "accuracy"]
    by = np.array([weights.get(name, 0.0) for name in DIMENSIONS])
    probed = [decisive[place] for place in sorted(np.random.default_rng(1).permutation(len(decisive))[:PROBED])]
    pictures = {one.picture: "dev" for one in dev} | {one.picture: "phantom" for one in phantoms}
    unlike = {picture: kind for kind, picture in strangers()}
    parts = [
        _pairs(dev),
        length_part(probed, by),
        meaning_part(probed, by),
        ruses_part(probed, by),
        forms_part(probed, by),
        _long(probed[:KEPT_LONG], by),
        _phantoms(phantoms),
        scope_rates(pictures | unlike),
    ]
    ends = [*accumulate(len(part.rows) for part in parts)]
    logits = ask([row for part in parts for row in part.rows])
    found: dict[str, Any] = {"data": {"pairs": len(dev), "images": len({one.picture for one in dev})}}
    for part, mine in zip(parts, np.split(logits, ends[:-1]), strict=True):
        found |= part.tell(mine)
    found["climb"] = climb(lambda rows: _rewards(ask(rows), by).tolist(), decisive)
    return found


def _pairs(dev: Sequence[Dev]) -> Part:
    """Asks for the pairs won, and tells what the same logits say of calibration and uncertainty.

    Only accuracy needs the image, so that only its pairs are asked with a grey one and with none too.
    """
    pairs = [one.pair for one in dev]
    decisive = [one for one in dev if one.pair.kind == "accuracy"]
    shown = [
        *((one, one.picture) for one in dev),
        *((one, blanked(one.picture)) for one in decisive),
        *((one, None) for one in decisive),
    ]
    rows = [Row(picture, one.pair.question, text) for one, picture in shown for text in (one.pair.good, one.pair.bad)]

    def tell(logits: Logits) -> dict[str, Any]:
        paired = logits[..., :SIX].reshape(-1, 2, logits.shape[1], SIX)
        seen, grey, none = np.split(paired, [len(dev), len(dev) + len(decisive)])
        right = wins(pairs, seen)
        without = [wins([one.pair for one in decisive], values) for values in (grey, none)]
        return {
            "pairs": _shares(dev, right, *without),
            "calibration": _calibration(dev, seen),
            "uncertainty": _uncertainty(dev, seen),
        }

    return Part(rows, tell)


def blanked(picture: Picture) -> Picture:
    """Returns a plain grey picture of the same size."""

    def read() -> bytes:
        size = probe(picture.read(), LIMITS)
        return png(np.full((size.height, size.width, 3), GREY, np.uint8))

    return Picture(f"{picture.name} blanked", read)


def _shares(dev: Sequence[Dev], seen: figures.Numbers, grey: figures.Numbers, none: figures.Numbers) -> dict[str, Any]:
    """Returns the shares won; `grey` and `none` are of the accuracy pairs alone, in their order."""
    places: defaultdict[str, defaultdict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, one in enumerate(dev):
        slices = [("all", "all"), ("set", one.pair.source)]
        if one.pair.kind == "accuracy":
            slices += [("form", one.form), ("question", one.about)]
        for by_name in slices:
            places[one.pair.kind][by_name].append(place)
    among = {place: number for number, place in enumerate(places["accuracy"]["all", "all"])}
    found: dict[str, Any] = {}
    for kind, sliced in sorted(places.items()):
        for (by, name), chosen in sorted(sliced.items()):
            told: dict[str, Any] = {"seen": figures.share(seen[chosen])}
            if kind == "accuracy":
                mine = [among[place] for place in chosen]
                images = [dev[place].picture.name for place in chosen]
                told = seen_and_blank(seen[chosen], grey[mine], images) | {"no_image": figures.share(none[mine])}
            found.setdefault(kind, {}).setdefault(by, {})[name] = told
    return found


def seen_and_blank(seen: figures.Numbers, blank: figures.Numbers, images: Sequence[str]) -> dict[str, Any]:
    gain = figures.gain(seen, blank, images)
    return {"seen": figures.share(seen), "blank": figures.share(blank), "gain": gain}


def _calibration(dev: Sequence[Dev], seen: NDArray[np.float32]) -> dict[str, Any]:
    ahead = ahead_by(seen)
    told = {name: [place for place, one in enumerate(dev) if name in one.pair.dimensions] for name in DIMENSIONS}
    found = {}
    for name, places in told.items():
        if len(places) >= FEWEST:
            mine = ahead[places, DIMENSIONS.index(name)]
            halves = across_halves(mine, [dev[place].picture.name for place in places])
            found[name] = {**figures.reliability(mine), "error_across_halves": figures.reliability(halves)["error"]}
    return found


def _uncertainty(dev: Sequence[Dev], seen: NDArray[np.float32]) -> dict[str, Any]:
    """Returns errors of accuracy pairs by the mean of the uncertainty that is served with both answers."""
    chosen = [place for place, one in enumerate(dev) if one.pair.kind == "accuracy"]
    wrong = 1 - wins([dev[place].pair for place in chosen], seen[chosen])
    spread = seen[chosen][..., DIMENSIONS.index("accuracy")].astype(np.float64).std(2).mean(1)
    return {"quartiles": figures.quartiles(spread, wrong), "ranked": figures.ranked(spread, wrong)}


def length_part(dev: Sequence[Dev], weights: figures.Numbers) -> Part:
    """Asks how reward follows length where the content is the same."""
    texts = np.array([[*probes.worded(one.content), *probes.padded(one.content)] for one in dev])
    rows = [Row(one.picture, one.pair.question, str(text)) for one, row in zip(dev, texts, strict=True) for text in row]

    def tell(logits: Logits) -> dict[str, Any]:
        reward, length = _rewards(logits, weights).reshape(texts.shape), np.char.str_len(texts).astype(np.float64)
        images = [one.picture.name for one in dev]
        worded = len(probes.WORDED)
        chosen = {"all": slice(None), "worded": slice(worded), "padded": slice(worded, None)}
        return {"length": {k: figures.correlation(length[:, c], reward[:, c], images) for k, c in chosen.items()}}

    return Part(rows, tell)


def meaning_part(dev: Sequence[Dev], weights: figures.Numbers) -> Part:
    """Asks what a change that keeps the meaning does to the reward, against what a real error does."""
    changed: list[tuple[str, int, tuple[str, str]]] = []
    for place, one in enumerate(dev):
        for name, change in probes.CHANGES.items():
            both = change(one.content, one.pair.good)
            if both and both[1].lower() != one.pair.bad.lower():
                changed.append((name, place, both))
    errors = [Row(one.picture, one.pair.question, text) for one in dev for text in (one.pair.good, one.pair.bad)]
    changes = [Row(dev[place].picture, dev[place].pair.question, text) for _, place, both in changed for text in both]

    def tell(logits: Logits) -> dict[str, Any]:
        moved = np.abs(np.diff(_rewards(logits, weights).reshape(-1, 2)))[:, 0]
        error, moved = moved[: len(dev)], moved[len(dev) :]
        found = {}
        for name in probes.CHANGES:
            chosen = [number for number, (change, _, _) in enumerate(changed) if change == name]
            if chosen:
                against = error[[changed[number][1] for number in chosen]]
                found[name] = {
                    **_middle(moved[chosen]),
                    "below_error": figures.share((moved[chosen] < against).astype(np.float64)),
                }
        return {"meaning": {"real_error": _middle(error), "changes": found}}

    return Part([*errors, *changes], tell)


def _middle(moved: figures.Numbers) -> dict[str, float]:
    return {"median": float(np.median(moved)), "p90": float(np.percentile(moved, 90))}


def ruses_part(dev: Sequence[Dev], weights: figures.Numbers) -> Part:
    """Asks how often what a policy may write in place of the right answer gets the higher reward."""
    texts = [
        [one.pair.good, one.pair.bad]
        + [ruse.play(one.pair.question, one.pair.good, one.pair.bad, np.random.default_rng(n)) for ruse in RUSES]
        for n, one in enumerate(dev)
    ]
    rows = [Row(one.picture, one.pair.question, text) for one, row in zip(dev, texts, strict=True) for text in row]

    def tell(logits: Logits) -> dict[str, Any]:
        right, wrong, *played = _rewards(logits, weights).reshape(len(dev), -1).T
        images = [one.picture.name for one in dev]
        found: dict[str, Any] = {
            "right": float(right.mean()),
            "wrong": {"mean": float(wrong.mean()), "ahead": figures.share(won(wrong - right))},
            "families": {},
        }
        for ruse, reward in zip(RUSES, played, strict=True):
            ahead = won(np.where(np.abs(reward - right) < SAME, 0.0, reward - right))
            found["families"][ruse.family] = {
                "taught": ruse.taught,
                "mean": float(reward.mean()),
                "ahead": figures.share(ahead),
                "above_wrong": figures.gain(ahead, won(wrong - right), images),
            }
        return {"ruses": found}

    return Part(rows, tell)


def forms_part(dev: Sequence[Dev], weights: figures.Numbers) -> Part:
    """Asks how often right in many forms beats plain wrong, and how far each form moves the reward."""
    texts = [
        [
            one.pair.good,
            one.pair.bad,
            *(formed(form, answer) for form in FORMS for answer in (one.pair.good, one.pair.bad)),
        ]
        for one in dev
    ]
    rows = [Row(one.picture, one.pair.question, text) for one, row in zip(dev, texts, strict=True) for text in row]

    def tell(logits: Logits) -> dict[str, Any]:
        right, wrong, *others = _rewards(logits, weights).reshape(len(dev), -1).T
        deviation = float(right.std())
        found: dict[str, Any] = {"deviation": deviation, "plain": figures.share(won(right - wrong)), "forms": {}}
        for place, form in enumerate(FORMS):
            good, bad = others[2 * place : 2 * place + 2]
            found["forms"][form] = {
                "taught": form in TAUGHT,
                "beats_plain_wrong": figures.share(won(good - wrong)),
                "beats_wrong_in_form": figures.share(won(good - bad)),
                "moved": float((good - right).mean() / max(deviation, 1e-9)),
            }
        return {"forms": found}

    return Part(rows, tell)


def _long(dev: Sequence[Dev], weights: figures.Numbers) -> Part:
    """Asks how many pairs that are right when short stay so amid many tokens, wherever the claim stands."""
    cases = [*product(LONG, (0.0, 0.5, 1.0))]
    texts: list[list[str]] = []
    for number, one in enumerate(dev):
        row = [one.pair.good, one.pair.bad]
        for length, at in cases:
            around = thought(length, np.random.default_rng([number, length]))
            place = int(at * len(around))
            row += [" ".join([*around[:place], said, *around[place:]]) for said in (one.pair.good, one.pair.bad)]
        texts.append(row)
    rows = [Row(one.picture, one.pair.question, text) for one, row in zip(dev, texts, strict=True) for text in row]

    def tell(logits: Logits) -> dict[str, Any]:
        reward = _rewards(logits, weights).reshape(len(dev), -1, 2)
        ahead = reward[:, :, 0] - reward[:, :, 1]
        short = ahead[:, 0] > 0
        return {
            "long": {
                str(length): {
                    "kept": figures.share(
                        won(ahead[short][:, [1 + n for n, (size, _) in enumerate(cases) if size == length]]).ravel()
                    )
                }
                for length in LONG
            }
        }

    return Part(rows, tell)


def _phantoms(pairs: Sequence[PhantomPair]) -> Part:
    rows = [
        Row(pair.picture if shown else None, pair.question, text)
        for shown in (True, False)
        for pair in pairs
        for text in (pair.good, pair.bad)
    ]

    def tell(logits: Logits) -> dict[str, Any]:
        paired = logits[..., :SIX].reshape(2, -1, 2, logits.shape[1], SIX)  # with the image and without, good and bad
        seen, blank = (won(ahead_by(values)[:, DIMENSIONS.index("accuracy")]) for values in paired)
        found = {}
        for novelty in sorted({pair.novelty for pair in pairs}, key=lambda name: (name != SEEN, name)):
            chosen = [place for place, pair in enumerate(pairs) if pair.novelty == novelty]
            names = [pairs[place].picture.name for place in chosen]
            found[novelty] = seen_and_blank(seen[chosen], blank[chosen], names)
        return {"phantoms": found}

    return Part(rows, tell)


def scope_rates(pictures: Mapping[Picture, str]) -> Part:
    """Asks for the share flagged of each sort of picture, where the model has a seventh column for it."""

    def tell(logits: Logits) -> dict[str, Any]:
        if logits.shape[2] == SIX:
            return {}
        flagged = (logits[..., SIX].mean(1) > 0).astype(np.float64)
        sorts = np.array([*pictures.values()])
        return {"out_of_scope": {sort: figures.share(flagged[sorts == sort]) for sort in dict.fromkeys(sorts.tolist())}}

    return Part([Row(picture, *ANYTHING) for picture in pictures], tell)


def _rewards(logits: Logits, weights: figures.Numbers) -> figures.Numbers:
    found: figures.Numbers = logits[..., :SIX].astype(np.float64).mean(1) @ weights
    return found


def rounded(value: Any) -> Any:
    """Returns figures, however deep they lie, with four digits."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value
