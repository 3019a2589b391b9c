"""Images below one folder of this machine, which requests name by path. No path leads out of it."""

import os
import stat
from pathlib import Path
from typing import Final

from medreward.errors import Code, ConfigurationError, ItemError

#: O_NONBLOCK: to open a named pipe would wait for somebody who writes into it.
OPENED: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class ImageRoot:
    """A folder whose images may be named. Everybody who may score may name them, whichever tenant's key he has."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigurationError(f"setting image_root: there is no folder {folder}")
        self._folder = folder.resolve()

    def read(self, path: str, max_bytes: int) -> bytes:
        """Returns the file at this path, below the folder or absolute. Raises ItemError for one that leads out of the
        folder, by `..` or by a link, with the same words as for one that does not exist."""
        try:
            inside = (self._folder / path).resolve().relative_to(self._folder)
            file = self._open(inside)
        except (OSError, ValueError, RuntimeError):  # not below the folder, NUL or a surrogate in it, a circle of links
            raise ItemError(
                Code.IMAGE_FETCH_FAILED, "no image can be read at this path below --image-root", "image"
            ) from None
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise ItemError(Code.IMAGE_INVALID, "the path below --image-root is no file", "image")
            if status.st_size > max_bytes:
                raise ItemError(Code.IMAGE_TOO_LARGE, f"the image has more than {max_bytes} bytes", "image")
            with os.fdopen(file, "rb", closefd=False) as opened:
                return opened.read(max_bytes + 1)
        finally:
            os.close(file)

    def _open(self, inside: Path) -> int:
        """Opens a path without links, part by part, so that a link put there meanwhile is not followed."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in inside.parts[:-1]:
                below = os.open(part, OPENED | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = below
            return os.open(inside.name, OPENED, dir_fd=folder)
        finally:
            os.close(folder)
