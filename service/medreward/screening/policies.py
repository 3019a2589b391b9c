"""The policies that a server may decide by: a folder `NAME/VERSION.toml`, and `NAME/current`, which names a version."""

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from medreward.errors import Code, ConfigurationError, RequestError
from medreward.screening.deciding import Decider
from medreward.screening.ledger import publish, published
from medreward.screening.policy import PolicyFile, check_policy, read_policy

log = logging.getLogger(__name__)

POINTER: Final = "current"
NO_POLICY: Final = "this server has no policy: start it with --policies; docs/screening.md says how to make one"


class Policies:
    """The current version of each policy, read when the model has been loaded, and again when a pointer is moved."""

    def __init__(self, folder: Path | None, default: str | None) -> None:
        self._folder = folder
        self._keeps_ledger = folder is not None  # a model's own policies are kept by its release
        self._default = default
        self._current: dict[str, tuple[PolicyFile, Decider]] = {}
        self._digests: dict[tuple[str, str], str] = {}  # of each version that was ever read: it may not change
        self._published: set[tuple[str, str]] = set()  # what the ledgers know
        self._model: tuple[str, tuple[str, ...], bool] = ("", (), False)
        self._weights: Mapping[str, float] = {}

    def load(
        self,
        fingerprint: str,
        dimensions: tuple[str, ...],
        has_uncertainty: bool,
        weights: Mapping[str, float],
        own: Path | None,
    ) -> None:
        """Reads the current policies for the model that is served; those of the folder `own` where no other was given.

        Fails with a ConfigurationError where one cannot be read or was made for another model, and where the default
        is not among them.
        """
        self._model, self._weights = (fingerprint, dimensions, has_uncertainty), weights
        if self._folder is None and own and own.is_dir():
            self._folder = own
        if self._folder is None:
            return
        if not self._folder.is_dir():
            raise ConfigurationError(f"setting policies: {self._folder} is no folder")
        names = sorted(
            path.name  # but not the hidden folders of a mounted ConfigMap
            for path in self._folder.iterdir()
            if path.is_dir() and not path.name.startswith(".") and any(path.glob("*.toml"))
        )
        for name in names:
            for version, digest in published(self._folder / name).items():
                self._digests[name, version] = digest
                self._published.add((name, version))
            self._current[name] = self._read(name, self._pointed(name))
        if self._default is None and len(names) == 1:
            self._default = names[0]
        if self._default is not None and self._default not in names:
            raise ConfigurationError(f"setting default_policy: there is no policy {self._default!r} in {self._folder}")

    def come_into_force(self) -> None:
        """Notes that the current versions decide from now on: with that they are published, and the log names them."""
        for name, (file, _) in self._current.items():
            self._publish(file)
            log.info("policy in force", extra={"policy": name, "version": file.policy.version, "digest": file.digest})

    @property
    def names(self) -> list[str]:
        """The names of all policies, sorted."""
        return list(self._current)

    def get(self, name: str | None) -> tuple[PolicyFile, Decider]:
        """Returns the current version of a policy, by default the server's. Refuses one that is not there."""
        name = name if name is not None else self._default
        if name is None:
            detail = "the request must name a policy: this server has several" if self._current else NO_POLICY
            raise RequestError(Code.POLICY_UNKNOWN, detail, "/policy")
        if name not in self._current:
            raise RequestError(Code.POLICY_UNKNOWN, "there is no such policy: GET /v1/policies lists them", "/policy")
        return self._current[name]

    def find(self, named: str) -> tuple[PolicyFile, Decider]:
        """Returns a policy for a setting that names it, as NAME (its current version) or NAME/VERSION. Fails with a
        ConfigurationError where it is not there or is not for the model that is served."""
        name, _, version = named.partition("/")
        if name not in self._current or (version and version not in self._versions(name)):
            raise ConfigurationError(
                f"there is no policy {named!r}: write NAME or NAME/VERSION of a policy in --policies"
            )
        return self._read(name, version) if version else self._current[name]

    def listed(self) -> list[dict[str, object]]:
        """Returns what `GET /v1/policies` shows: for each policy its versions, and the current one with its rules."""
        return [
            {
                **file.as_json(),
                "default": name == self._default,
                "versions": self._versions(name),
                **file.policy.model_dump(mode="json", include={"fingerprint", "otherwise", "weights", "false_allow"}),
                "rules": [rule.model_dump(mode="json", exclude_none=True) for rule in file.policy.rules],
                "departments": file.policy.model_dump(mode="json")["departments"],
            }
            for name, (file, _) in self._current.items()
        ]

    def move(self, name: str, version: str, key_id: str = "") -> PolicyFile:
        """Makes this version of the policy the current one and returns it; the log says which key moved it. Refuses a
        version that is not there, was made for another model, or has changed since it was published; then the one
        before stays."""
        if name not in self._current or version not in self._versions(name):
            raise RequestError(Code.POLICY_UNKNOWN, "there is no such version of this policy", "/version")
        try:
            read = self._read(name, version)
            self._point(name, version)
        except ConfigurationError as error:
            raise RequestError(Code.POLICY_REFUSED, str(error), "/version") from None
        before = self._current[name][0].policy.version
        self._current[name] = read
        self._publish(read[0])
        about = {"policy": name, "from": before, "to": version, "digest": read[0].digest, "key": key_id}
        log.info("the pointer of a policy was moved", extra=about)
        return read[0]

    def _versions(self, name: str) -> list[str]:
        assert self._folder is not None
        return sorted(path.stem for path in (self._folder / name).glob("*.toml"))

    def _pointed(self, name: str) -> str:
        """Returns the version that the pointer names, if it was made for this model. Without a pointer, or after a swap
        of the model, it is the only version that was."""
        assert self._folder is not None
        versions, pointer = self._versions(name), self._folder / name / POINTER
        named = self._named(pointer, versions) if pointer.exists() else None
        fitting = [version for version in versions if self._fits(name, version)]
        if named in fitting or len(versions) == 1 or not fitting:
            return named or versions[-1]  # what does not fit is refused when it is read
        if len(fitting) > 1:
            raise ConfigurationError(f"policy {name} has several versions: write the one to use into {pointer}")
        return fitting[0]

    def _named(self, pointer: Path, versions: list[str]) -> str:
        try:
            version = pointer.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{pointer} cannot be read: {error}") from None
        if version not in versions:
            about = f"the version {version!r}" if len(version) <= 64 else "something else than a version"
            raise ConfigurationError(f"{pointer} names {about}: it must name one of {', '.join(versions)}")
        return version

    def _fits(self, name: str, version: str) -> bool:
        """Returns whether this version was made for the model. One that cannot be read was not."""
        assert self._folder is not None
        try:
            return read_policy(self._folder / name / f"{version}.toml").policy.fingerprint == self._model[0]
        except ConfigurationError:
            return False

    def _read(self, name: str, version: str) -> tuple[PolicyFile, Decider]:
        assert self._folder is not None
        file = read_policy(self._folder / name / f"{version}.toml")
        if (file.policy.name, file.policy.version) != (name, version):
            raise ConfigurationError(f"{file.file} says it is {file.policy.name} {file.policy.version}")
        check_policy(file, *self._model)
        if self._digests.setdefault((name, version), file.digest) != file.digest:
            raise ConfigurationError(f"{file.file} has changed since it was published: give the change a new version")
        return file, Decider(file.policy, self._weights)

    def _publish(self, file: PolicyFile) -> None:
        """Remembers across restarts that this version may not change any more."""
        assert self._folder is not None
        name, version = file.policy.name, file.policy.version
        if self._keeps_ledger and (name, version) not in self._published:
            self._published.add((name, version))
            publish(self._folder / name, file)

    def _point(self, name: str, version: str) -> None:
        """Writes the pointer in one step."""
        assert self._folder is not None
        folder = self._folder / name
        try:
            handle, new = tempfile.mkstemp(dir=folder, prefix=f".{POINTER}.")
            with os.fdopen(handle, "w") as file:
                file.write(f"{version}\n")
            Path(new).chmod(0o644)
            Path(new).replace(folder / POINTER)
        except OSError as error:
            raise ConfigurationError(f"the pointer in {folder} cannot be written: {error.strerror}") from None
