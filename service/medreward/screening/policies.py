"""The policies that a server may decide by: a folder `NAME/VERSION.toml`, and `NAME/current`, which names a version."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from medreward.errors import Code, ConfigurationError, RequestError
from medreward.screening.deciding import Decider
from medreward.screening.policy import PolicyFile
from medreward.screening.policy_folder import PolicyFolder, Served

log = logging.getLogger(__name__)

NO_POLICY: Final = "this server has no policy: start it with --policies; docs/screening.md says how to make one"


class Policies:
    """The current version of each policy, read when the model has been loaded, and again when a pointer is moved."""

    def __init__(self, folder: Path | None, default: str | None) -> None:
        self._given = folder
        self._default = default
        self._folders: dict[str, PolicyFolder] = {}
        self._current: dict[str, tuple[PolicyFile, Decider]] = {}
        self._weights: Mapping[str, float] = {}

    def load(self, served: Served, weights: Mapping[str, float], own: Path | None) -> None:
        """Reads the current policies for the model that is served; those of the folder `own` where no other was given.

        Fails with a ConfigurationError where one cannot be read or was made for another model, and where the default
        is not among them.
        """
        self._weights = weights
        folder = self._given or (own if own and own.is_dir() else None)
        if folder is None:
            return
        if not folder.is_dir():
            raise ConfigurationError(f"setting policies: {folder} is no folder")
        names = sorted(
            path.name  # but not the hidden folders of a mounted ConfigMap
            for path in folder.iterdir()
            if path.is_dir() and not path.name.startswith(".") and any(path.glob("*.toml"))
        )
        for name in names:
            # A model's own policies are kept by its release, and need no ledger.
            self._folders[name] = PolicyFolder(folder / name, served, keeps_ledger=self._given is not None)
            self._current[name] = self._decide_by(self._folders[name].current())
        if self._default is None and len(names) == 1:
            self._default = names[0]
        if self._default is not None and self._default not in names:
            raise ConfigurationError(f"setting default_policy: there is no policy {self._default!r} in {folder}")

    def come_into_force(self) -> None:
        """Notes that the current versions decide from now on: with that they are published, and the log names them."""
        for name, (file, _) in self._current.items():
            self._folders[name].publish(file)
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
        if name not in self._current or (version and version not in self._folders[name].versions()):
            raise ConfigurationError(
                f"there is no policy {named!r}: write NAME or NAME/VERSION of a policy in --policies"
            )
        return self._decide_by(self._folders[name].read(version)) if version else self._current[name]

    def listed(self) -> list[dict[str, object]]:
        """Returns what `GET /v1/policies` shows: for each policy its versions, and the current one with its rules."""
        return [
            {
                **file.as_json(),
                "default": name == self._default,
                "versions": self._folders[name].versions(),
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
        folder = self._folders.get(name)
        if folder is None or version not in folder.versions():
            raise RequestError(Code.POLICY_UNKNOWN, "there is no such version of this policy", "/version")
        try:
            file = folder.read(version)
            folder.point(version)
        except ConfigurationError as error:
            raise RequestError(Code.POLICY_REFUSED, str(error), "/version") from None
        before = self._current[name][0].policy.version
        self._current[name] = self._decide_by(file)
        folder.publish(file)
        about = {"policy": name, "from": before, "to": version, "digest": file.digest, "key": key_id}
        log.info("the pointer of a policy was moved", extra=about)
        return file

    def _decide_by(self, file: PolicyFile) -> tuple[PolicyFile, Decider]:
        return file, Decider(file.policy, self._weights)
