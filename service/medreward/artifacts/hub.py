"""Files of the Hugging Face hub, kept in the hub's own cache."""

import logging
from collections.abc import Sequence
from pathlib import Path

from medreward.errors import ConfigurationError


def download(repo: str, revision: str, kind: str, patterns: Sequence[str], but: str | None = None) -> Path:
    """Downloads the files that fit a pattern and not `but`, and returns their folder, whose name is their commit.

    Fails without huggingface-hub, and where the hub does not give the files and the cache does not have them.
    """
    try:
        import httpx
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise ConfigurationError(f"{repo}@{revision}: the hub needs huggingface-hub (medreward[vlm])") from None
    disable_progress_bars()  # a server's stderr is JSON lines
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return Path(
            snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=[*patterns], ignore_patterns=but)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigurationError(f"cannot get {repo}@{revision} from the hub: {reason}") from None
