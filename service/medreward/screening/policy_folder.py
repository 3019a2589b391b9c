"""One policy on disk: a folder with `VERSION.toml` files, the pointer `current`, which names the version in use, and
the ledger `published`. It is what is remembered across restarts: it has the form of sha256sum, so that
`sha256sum --check published` tells people the same."""

import logging
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medreward.errors import ConfigurationError
from medreward.screening.policy import PolicyFile, check_policy, digest_of, read_policy

log = logging.getLogger(__name__)

POINTER: Final = "current"
LEDGER: Final = "published"
LINE: Final = re.compile(r"^([0-9a-f]{64})  (\S+)\.toml$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Served:
    """What a policy must fit: the model that is served."""

    fingerprint: str
    dimensions: tuple[str, ...]
    has_uncertainty: bool


class PolicyFolder:
    """The versions of one policy, for the model that is served. A version that was ever current may not change."""

    def __init__(self, path: Path, served: Served, keeps_ledger: bool) -> None:
        """Reads the ledger; fails with a ConfigurationError where it cannot be read, and where the file of a published
        version has changed. Without `keeps_ledger` nothing is written to it."""
        self._path = path
        self._served = served
        self._keeps_ledger = keeps_ledger
        self._digests = _published(path)  # of each version that was ever current
        self._published = set(self._digests)  # what the ledger knows

    def versions(self) -> list[str]:
        """Returns all versions that lie there, sorted."""
        return sorted(path.stem for path in self._path.glob("*.toml"))

    def current(self) -> PolicyFile:
        """Returns the version that the pointer names, if it was made for this model; without a pointer, or after a swap
        of the model, the only version that was. Fails with a ConfigurationError where there is no such version."""
        versions, pointed = self.versions(), self._pointed()
        fitting = [version for version in versions if self._fits(version)]
        if pointed in fitting or len(versions) == 1 or not fitting:
            return self.read(pointed or versions[-1])  # what does not fit is refused there
        if len(fitting) > 1:
            raise ConfigurationError(
                f"policy {self._path.name} has several versions: write the one to use into {self._path / POINTER}"
            )
        return self.read(fitting[0])

    def read(self, version: str) -> PolicyFile:
        """Returns a version. Fails with a ConfigurationError where it cannot be read, says that it is another one, was
        made for another model, or has changed since it was published."""
        file = self._read(version)
        policy = file.policy
        if (policy.name, policy.version) != (self._path.name, version):
            raise ConfigurationError(f"{file.file} says it is {policy.name} {policy.version}")
        check_policy(file, self._served.fingerprint, self._served.dimensions, self._served.has_uncertainty)
        if self._digests.setdefault(version, file.digest) != file.digest:
            raise ConfigurationError(f"{file.file} has changed since it was published: give the change a new version")
        return file

    def publish(self, file: PolicyFile) -> None:
        """Remembers across restarts that this version may not change any more. A folder that cannot be written, such
        as that of a ConfigMap, remembers nothing, which the log says."""
        version = file.policy.version
        if not self._keeps_ledger or version in self._published:
            return
        self._published.add(version)
        try:
            with (self._path / LEDGER).open("a", encoding="utf-8") as ledger:
                ledger.write(f"{file.digest.removeprefix('sha256:')}  {version}.toml\n")
        except OSError as error:
            log.info(
                "nobody will notice after a restart if this version changes: its folder cannot be written",
                extra={"policy": file.policy.name, "version": version, "reason": error.strerror},
            )

    def point(self, version: str) -> None:
        """Writes the pointer, in one step. Fails with a ConfigurationError."""
        try:
            handle, new = tempfile.mkstemp(dir=self._path, prefix=f".{POINTER}.")
            with os.fdopen(handle, "w") as file:
                file.write(f"{version}\n")
            Path(new).chmod(0o644)
            Path(new).replace(self._path / POINTER)
        except OSError as error:
            raise ConfigurationError(f"the pointer in {self._path} cannot be written: {error.strerror}") from None

    def _read(self, version: str) -> PolicyFile:
        return read_policy(self._path / f"{version}.toml")

    def _fits(self, version: str) -> bool:
        """Returns whether this version was made for the model. One that cannot be read was not."""
        try:
            return self._read(version).policy.fingerprint == self._served.fingerprint
        except ConfigurationError:
            return False

    def _pointed(self) -> str | None:
        """Returns the version that the pointer names; None where there is no pointer."""
        pointer, versions = self._path / POINTER, self.versions()
        try:
            version = pointer.read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{pointer} cannot be read: {error}") from None
        if version not in versions:
            about = f"the version {version!r}" if len(version) <= 64 else "something else than a version"
            raise ConfigurationError(f"{pointer} names {about}: it must name one of {', '.join(versions)}")
        return version


def _published(folder: Path) -> dict[str, str]:
    """Returns the digest of each version that was ever current in this folder."""
    try:
        text = (folder / LEDGER).read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{folder / LEDGER} cannot be read: {error}") from None
    digests = {version: f"sha256:{digest}" for digest, version in reversed(LINE.findall(text))}  # the first one counts
    for version, digest in digests.items():
        file = folder / f"{version}.toml"
        if file.exists() and digest_of(file) != digest:
            raise ConfigurationError(
                f"{file} has changed since it was published: put the file back whose digest {folder / LEDGER} has, and "
                "give the change a new version"
            )
    return digests
