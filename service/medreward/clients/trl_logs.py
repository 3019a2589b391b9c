"""Writes into a run's logs how its rewards came about, and which model gave them. A resumed run must meet that
model.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from medreward.clients.errors import VersionChanged, describe
from medreward.clients.score import Numbers, Score
from medreward.clients.sync import Client
from medreward.types import DIMENSIONS, Flag, ModelRef

NAME: Final = "medreward"
FINGERPRINT: Final = f"{NAME}/fingerprint"
RECORD_FILE: Final = f"{NAME}.json"

log = logging.getLogger(__name__)


def log_batch(scores: Sequence[Score], served: ModelRef | None, columns: Mapping[str, Any]) -> None:
    """Logs a line for what was not scored and one for what was cut, and hands the rest to a trainer that takes logs."""
    causes = Counter(score.error or "no_reward" for score in scores if score.reward is None)
    if causes:
        counted = ", ".join(f"{code} {count}" for code, count in causes.most_common())
        log.warning("%d of %d responses not scored: %s", causes.total(), len(scores), counted)
    flags = Counter(flag for score in scores for flag in score.flags)
    if cut := flags[Flag.CUT_MIDDLE]:
        log.warning("%d of %d responses were cut in their middle, which may raise their rewards", cut, len(scores))
    if log_metric := columns.get("log_metric"):
        count = max(1, len(scores))
        log_metric(f"{NAME}/unscored", causes.total() / count)
        for flag in Flag:
            log_metric(f"{NAME}/flags/{flag}", flags[flag] / count)
        _log_means("uncertainty/", [score.uncertainty for score in scores], log_metric)
    if log_extra := columns.get("log_extra"):  # in every step, or TRL mixes up the rows of two steps
        log_extra(f"{NAME}_error", [score.error for score in scores])
        log_extra(f"{NAME}_flags", [", ".join(score.flags) for score in scores])
        log_extra(f"{NAME}_fingerprint", [served and served.fingerprint] * len(scores))


def log_dimensions(scores: Sequence[Score], columns: Mapping[str, Any]) -> None:
    """Logs the mean of each dimension, so that a policy which lives off a single one is seen."""
    if log_metric := columns.get("log_metric"):
        _log_means("", [score.logits for score in scores], log_metric)


def _log_means(kind: str, sixes: Sequence[Numbers | None], log_metric: Any) -> None:
    for dimension in DIMENSIONS:
        known = [number for six in sixes if six and (number := six[dimension]) is not None]
        if known:
            log_metric(f"{NAME}/{kind}{dimension}", fmean(known))


def keep_to_one_model(client: Client, columns: Mapping[str, Any]) -> None:
    """Notes the model in the trainer's log and beside its checkpoints, and raises VersionChanged if it is another one.

    The trainer's log is part of its state, which each checkpoint holds: a resumed run begins with the one it had.
    """
    state, served = columns.get("trainer_state"), client.served_by
    if state is None or served is None:
        return
    noted = [entry for entry in state.log_history if FINGERPRINT in entry]
    if noted and noted[-1][FINGERPRINT] != served.fingerprint and client.pin is True:
        before = f"{noted[-1][f'{NAME}/model']} ({noted[-1][FINGERPRINT]})"
        raise VersionChanged(
            f"this run's rewards were those of {before}, and the server has {describe(served)} now. Rewards of two "
            "models are on two scales. Serve the first one again; or go on with the new one by "
            f"pin={served.fingerprint!r}, an option of reward_funcs and of Client (pin=False takes any model)",
            noted[-1][FINGERPRINT],
            served,
        )
    if not noted or noted[-1][FINGERPRINT] != served.fingerprint:
        log.log(logging.WARNING if noted else logging.INFO, "from here on, rewards are those of %s", describe(served))
        entry = {FINGERPRINT: served.fingerprint, f"{NAME}/model": f"{served.name} {served.version}"}
        noted.append(entry | {"step": state.global_step})
        state.log_history.append(noted[-1])
    _write_beside_checkpoints(noted, columns)


def _write_beside_checkpoints(noted: Sequence[Mapping[str, Any]], columns: Mapping[str, Any]) -> None:
    # TRL tells a reward function neither its settings nor its folder; but what it passes for logging is a method of its
    # own. Without it the trainer's log, in every checkpoint, is the only place.
    args = getattr(getattr(columns.get("log_metric"), "__self__", None), "args", None)
    if args is None or not columns["trainer_state"].is_world_process_zero:
        return
    path = Path(args.output_dir) / RECORD_FILE
    text = json.dumps(noted, indent=1) + "\n"
    if not path.exists() or path.read_text("utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
