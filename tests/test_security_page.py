"""SECURITY.md names tests; they are there under these names."""

import re
from pathlib import Path

ROOT = Path(__file__).parent


def test_every_test_that_the_page_names_exists() -> None:
    page = (ROOT.parent / "SECURITY.md").read_text()
    named, file = [], ""
    for mention in re.findall(r"`([a-z0-9_/]*(?:\.py)?)((?:::\w+)+)`", page):
        file = mention[0] or file  # `::test` is of the file named before it
        named.append((file, mention[1].rpartition("::")[2]))
    assert len(named) > 15
    missing = [name for name in named if f"def {name[1]}(" not in (ROOT / name[0]).read_text()]
    assert missing == []
