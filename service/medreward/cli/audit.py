"""`medreward audit`: whether an audit log is whole, what is in it, and how what is about a patient is erased."""

import getpass
import itertools
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from medreward.cli.options import json_option, option
from medreward.cli.show import print_json, print_table
from medreward.errors import ConfigurationError
from medreward.screening.audit.chain import Entry, holders
from medreward.screening.audit.erasing import Places, erasure_entry, find_subjects, rewrite
from medreward.screening.audit.files import entries_of, files_of, logs_in
from medreward.screening.audit.key import AuditKey, default_key_file, read_key
from medreward.screening.audit.log import AuditLog, is_open
from medreward.screening.audit.looking import Filter, select
from medreward.screening.audit.verify import Report, in_order
from medreward.screening.audit.verify import verify as verify_files

F = TypeVar("F", bound=Callable[..., Any])
HEX: Final = re.compile(r"[0-9a-f]{64}")
COLUMNS: Final = ["entry", "time (UTC)", "event", "decision", "response", "tenant", "key", "policy", "verdict", "why"]
DAYS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
AT_ONCE: Final = 2**62  # bytes: an erasure begins no new file by itself


class Hash(click.types.StringParamType):
    name = "hash"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not HEX.fullmatch(value):
            self.fail(f"{value!r} is no hash: it has 64 hex digits", param, ctx)
        return value


HASH: Final = Hash()
log_argument = click.argument("log", type=click.Path(path_type=Path, exists=True))
key_file_option = option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="the log's key; by default LOG.key beside it, where that exists",
)
ABOUT: Final = (
    option("--decision", "decisions", multiple=True, metavar="ID", help="of the decision with this id"),
    option("--about-sha256", "hashes", multiple=True, type=HASH, help="about what has this SHA-256"),
    option("--about-response", "responses", multiple=True, metavar="TEXT", help="about this response"),
    option("--about-question", "questions", multiple=True, metavar="TEXT", help="about this question"),
    option(
        "--about-image",
        "images",
        multiple=True,
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="about this image file, as it was sent",
    ),
)


def about_options(command: F) -> F:
    """Adds the flags that name a decision, or a payload by itself or by its SHA-256."""
    for decorate in ABOUT:
        command = decorate(command)
    return command


@click.group("audit")
def command() -> None:
    """Verify an audit log, show its entries, and erase what is about a patient."""


@command.command()
@click.argument("log", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@key_file_option
@option("--expect-last", type=HASH, help="hash of an entry that must be there, as /admin/state gave it")
@option("--from", "begins_after", type=HASH, help="hash of the last entry that was removed on purpose")
@json_option
def verify(
    log: Sequence[Path], key_file: Path | None, expect_last: str | None, begins_after: str | None, as_json: bool
) -> int:
    """Find each line that was changed, dropped, moved or added; exit 1 if there is one.

    LOG is the file of --audit (its older files are read too), its folder, or several files of one log.
    """
    file = _file_of(log[0])
    key = _key(file, key_file)

    def report_now() -> Report:
        parts = [files_of(_file_of(path)) if path.is_dir() else [path] for path in log]
        files = in_order(itertools.chain(*parts)) if len(log) > 1 else files_of(file)
        return verify_files(files, key.secret if key else None, begins_after, expect_last)

    report = report_now()
    if not report.ok and is_open(file):  # it may have written a line, or begun a file, while we read
        time.sleep(1)
        report = report_now()
    if as_json:
        print_json(msgspec.to_builtins(report) | {"ok": report.ok})
        return int(not report.ok)
    for problem in report.problems:
        click.echo(str(problem))
    _print_summary(report)
    return int(not report.ok)


@command.command()
@log_argument
@key_file_option
@about_options
@option("--event", "events", multiple=True, metavar="NAME", help="decision, override, erasure or open")
@option("--verdict", default="", metavar="VERDICT", help="with this verdict on a response")
@option("--by-policy", "policy", default="", metavar="NAME", help="by this policy")
@option("--of-tenant", "tenant", default="", metavar="NAME", help="of this tenant")
@option("--since", type=click.DateTime(DAYS), help="from this time (UTC)")
@option("--until", type=click.DateTime(DAYS), help="before this time (UTC)")
@option("--last", type=click.IntRange(1), metavar="N", help="only the last N entries of these")
@json_option
def show(
    log: Path,
    key_file: Path | None,
    events: Sequence[str],
    decisions: Sequence[str],
    verdict: str,
    policy: str,
    tenant: str,
    since: datetime | None,
    until: datetime | None,
    last: int | None,
    as_json: bool,
    **about: Any,
) -> int:
    """Show entries of a log: all, or those that pass every filter that is given."""
    file = _file_of(log)
    key = _key(file, key_file)
    digests = _digests(key, **about)
    times = [moment.strftime("%Y-%m-%dT%H:%M:%S") if moment else "" for moment in (since, until)]
    wanted = Filter(events, times[0], times[1], decisions, policy, tenant, verdict, digests)
    found = select(files_of(file), wanted, skipped=_warn, key=key.secret if key else None)
    entries = list(found)[-(last or 0) :]
    if as_json:
        print_json(entries)
    elif entries:
        print_table(COLUMNS, [row for entry in entries for row in _rows(entry)])
    else:
        click.echo("no entry of the log is like that", err=True)
    return 0


@command.command("erase")
@log_argument
@key_file_option
@about_options
@option("--dry-run", is_flag=True, help="only say what would be erased")
@json_option
def erase_(
    log: Path, key_file: Path | None, decisions: Sequence[str], dry_run: bool, as_json: bool, **about: Any
) -> int:
    """Erase digests, scores and reasons of what is about an image, a question, a response or a decision.

    What stays is that there was a decision, when, by which policy and model, and with which verdict. The chain stays
    whole, and an entry of its own says what was erased. A server that has the log open must be stopped,
    or asked by POST /admin/audit/erase.
    """
    file = _file_of(log)
    key = _key(file, key_file)
    digests = _digests(key, **about)
    if not digests and not decisions:
        raise click.UsageError("say what to erase: give --about-image or another of these flags")
    if key is None:
        raise click.UsageError("the erasure is an entry of the log, which needs the log's key: give --key-file")
    found = _erase(file, key, digests, decisions) if not dry_run else find_subjects(files_of(file), digests, decisions)
    count = sum(len(places) for entries in found.values() for places in entries.values())
    if as_json:
        print_json({"erased": 0 if dry_run else count, "found": count, "files": [str(path) for path in found]})
    else:
        done = "would be erased" if dry_run else "erased"
        click.echo(f"{done}: {_subjects(count)}" if count else "nothing in the log is about that")
    return 0


def _erase(file: Path, key: AuditKey, digests: Sequence[str], decisions: Sequence[str]) -> Places:
    """Erases, and returns where. Fails with a ConfigurationError where a server has the log open, and where the log is
    broken, which an erasure would hide."""
    if is_open(file):
        raise ConfigurationError(
            f"a server has the audit log {file} open: ask it by POST /admin/audit/erase, or stop it"
        )
    log = AuditLog(file, key, AT_ONCE)
    try:
        files = files_of(file)
        begins_after = next(entries_of(files[0]))["previous"]
        report = verify_files(files, key.secret, begins_after)
        if not all(problem.is_unfinished_erasure for problem in report.problems):
            raise ConfigurationError(f"audit log {file} is broken, so nothing is erased: run `medreward audit verify`")
        found = find_subjects(files, digests, decisions)
        if found:
            log.append([erasure_entry(found, by=getpass.getuser())])
        for path, entries in found.items():
            rewrite(path, entries)
    finally:
        log.close()
    return found


def _file_of(path: Path) -> Path:
    """Returns the log's FILE: the path itself, or the one log in the folder of this path."""
    if path.is_file():
        return path
    logs = logs_in(path)
    if len(logs) != 1:
        names = ", ".join(log.name for log in logs)
        raise click.UsageError(f"{path} has several audit logs: {names}" if logs else f"{path} has no audit log in it")
    return logs[0]


def _key(file: Path, key_file: Path | None) -> AuditKey | None:
    """Returns the key that was given, or the one beside the log; None where there is none."""
    beside = default_key_file(file)
    return read_key(key_file) if key_file else read_key(beside) if beside.exists() else None


def _digests(
    key: AuditKey | None,
    images: Sequence[Path],
    questions: Sequence[str],
    responses: Sequence[str],
    hashes: Sequence[str],
) -> list[str]:
    """Returns the digests that the log has of these payloads. Fails where there is no key to make them with."""
    if key is None:
        if images or questions or responses or hashes:
            raise click.UsageError("to find a payload by its digest needs the log's key: give --key-file")
        return []
    payloads: list[str | bytes] = [*(image.read_bytes() for image in images), *questions, *responses]
    return [*map(key.digest, payloads), *map(key.digest_of, hashes)]


def _rows(entry: Entry) -> list[list[str]]:
    """Returns the lines of an entry in the table: one for each response of a decision."""
    policy = entry.get("policy", {})
    about = [str(entry["seq"]), entry["time"].removesuffix("Z")[:23].replace("T", " "), entry["event"]]
    who = [entry["tenant"], entry["key"]] if "decision_id" in entry else ["", ""]
    which = f"{policy['name']} {policy['version']}" if policy else ""
    rows = []
    for part in holders(entry):
        place = f"{part['item']}.{part['response']}"
        why = part.get("rule") or part.get("error") or (part["subject"] or {}).get("reason", "")
        if part["subject"] is None:
            why = f"{why} (the rest is erased)".lstrip()
        rows.append([*about, entry["decision_id"], place, *who, which, part["verdict"], why])
    return rows or [[*about, "", "", *who, which, "", _why(entry)]]


def _why(entry: Entry) -> str:
    if entry["event"] == "erasure":
        return f"{_subjects(len(entry['places']))}, by {entry['by']}"
    return f"medreward {entry['version']}" + (f", after {entry['torn']['bytes']} torn bytes" if entry["torn"] else "")


def _subjects(count: int) -> str:
    return f"what the log held about {count} response{'' if count == 1 else 's'}"


def _warn(what: str) -> None:
    click.echo(f"medreward: {what}", err=True)


def _print_summary(report: Report) -> None:
    state = "whole" if report.ok else "BROKEN"
    click.echo(f"{state}: {report.entries} entries ({report.first} to {report.last}), files: {report.files}")
    click.echo(f"last hash: {report.hash}")
    if report.erased:
        click.echo(f"erased: {_subjects(report.erased)}")
    if report.torn:
        click.echo(f"torn lines that a server set aside when it started: {report.torn}")
    if not report.mac_checked:
        click.echo("checked without the key: whoever rewrites all lines from a changed one on is not found", err=True)
