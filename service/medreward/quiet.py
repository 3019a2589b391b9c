"""What libraries do unasked is switched off here: usage statistics, and caches in the home folder.

Most libraries read such a switch while they are imported. So `import medreward` sets all of them before anything else,
and child processes inherit them. What the user has set stays as it is. Nothing here forbids a download: a trainer that
takes its policy or its data from the hub goes on doing so.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STATISTICS_OFF: Final = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime: to Microsoft, with a database under ~/.cache/Microsoft
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub: TRL reports to huggingface.co whenever a trainer is made
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets: to s3.amazonaws.com for each set that is loaded, also of local files
    "VLLM_NO_USAGE_STATS": "1",  # vLLM: to stats.vllm.ai whenever an engine starts
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray: to usage-stats.ray.io while a cluster runs
}
#: Where a library that was imported before us keeps what it has read, and what stands for "off" there.
ALREADY_READ: Final = {
    "HF_HUB_DISABLE_TELEMETRY": ("huggingface_hub.constants", True),
    "HF_UPDATE_DOWNLOAD_COUNTS": ("datasets.config", False),
}


def switch_statistics_off() -> None:
    """Sets each variable that the user has not set, and the same in libraries that were imported before us."""
    for name, value in STATISTICS_OFF.items():
        if name in os.environ:
            continue
        os.environ[name] = value
        module, off = ALREADY_READ.get(name, ("", None))
        if module in sys.modules:
            vars(sys.modules[module])[name] = off


@contextmanager
def without_font_caches() -> Iterator[None]:
    """Stands around the first import of matplotlib, which then knows its own fonts alone and leaves nothing behind.

    By itself it lists this machine's fonts, keeps the list in the home folder, and has fontconfig keep another.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="medreward-") as folder:
        no_fonts = Path(folder, "fonts.conf")
        no_fonts.write_text("<fontconfig/>")
        ours = {"MPLCONFIGDIR": folder, "FONTCONFIG_FILE": str(no_fonts)}
        before = {name: os.environ[name] for name in ours if name in os.environ}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name in ours:
                del os.environ[name]
            os.environ.update(before)
