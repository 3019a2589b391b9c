"""Models that score alike but are told apart: copies of the bundled one with another calibration."""

import re
from pathlib import Path

from medreward.artifacts.repository import bundled_models


def sister(folder: Path, median: float) -> Path:
    """Writes a copy of the bundled model whose scores of accuracy have another median, and returns its folder. Its
    logits, and so its golden triples, are those of the bundled model; its fingerprint is its own."""
    folder.mkdir(parents=True)
    for file in (bundled_models() / "medreward-mini").iterdir():
        if file.is_file() and file.name != "model.toml":
            (folder / file.name).symlink_to(file)
    text = (bundled_models() / "medreward-mini" / "model.toml").read_text()
    changed = re.sub(r'(\[calibration.accuracy\]\n"median" = )\S+', rf"\g<1>{median}", text)
    assert changed != text
    (folder / "model.toml").write_text(changed)
    return folder
