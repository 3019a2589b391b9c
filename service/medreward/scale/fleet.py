"""Which replicas serve, and with which model: a replica whose model differs from its siblings' is refused."""

from collections.abc import Collection, Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """A replica: the release that it was deployed as, its model's fingerprint, and where its metrics are."""

    replica: str
    release: str
    fingerprint: str
    metrics: str  # host:port of its admin port


class Fleet:
    """The members of one deployment. Ray keeps one of these in an actor, which all replicas ask."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}

    def join(self, member: Member, alive: Collection[str]) -> str | None:
        """Takes the replica in, in place of what it was before. Returns None, or why it may not serve: a living
        replica of the same release has another fingerprint."""
        self._members = {name: one for name, one in self._members.items() if name in alive and name != member.replica}
        for other in self._members.values():
            if other.release == member.release and other.fingerprint != member.fingerprint:
                return (
                    f"this replica has the model {member.fingerprint}, and replica {other.replica} has "
                    f"{other.fingerprint}, though both were deployed as the same release: give every node the same "
                    "files of the model"
                )
        self._members[member.replica] = member
        return None

    def members(self, alive: Set[str]) -> list[Member]:
        """Returns the members that live, ordered by their ids."""
        return [self._members[name] for name in sorted(self._members.keys() & alive)]
