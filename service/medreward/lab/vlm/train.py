"""The loop: batches by seed and step, a reading of the dev part, checkpoints that a stopped run goes on from."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from safetensors.torch import load_file, save_file
from torch import Tensor

from medreward.cores import available_cores
from medreward.errors import ConfigurationError
from medreward.lab.training.reader import Reader
from medreward.lab.training.train import rate_at
from medreward.lab.vlm.base import Base, Opened, as_group, open_to_learn
from medreward.lab.vlm.batches import Places, batch_at, seen_by
from medreward.lab.vlm.examples import Example, Parts
from medreward.lab.vlm.loss import Counts, counts, step_loss
from medreward.lab.vlm.pairs_right import ahead, shares_right
from medreward.lab.vlm.recipe import Recipe

CHECKPOINT: Final = "checkpoint.pt"
BEST: Final = "best.safetensors"
LOG: Final = "log.jsonl"
LOG_STEPS: Final = 10
DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(slots=True)
class Progressed:
    """Where a run stands."""

    step: int = 0
    best: float = float("inf")  # loss of the dev part
    best_step: int = 0
    worse: int = 0  # readings since the best one


class Run:
    """A fine-tuning in a folder; it goes on where the folder's checkpoint stopped.

    Several processes that `accelerate launch` started share each step's batch and end with the same weights.
    """

    def __init__(self, recipe: Recipe, base: Base, parts: Parts, out: Path, console: Console) -> None:
        self._recipe, self._parts, self._out, self._console = recipe, parts, out, console
        self._accelerator = accelerator(recipe, out)
        processes = self._accelerator.num_processes
        if recipe.learn.batch % processes:
            raise ConfigurationError(
                f"learn.batch is {recipe.learn.batch}, which {processes} processes cannot share evenly"
            )
        torch.set_num_threads(recipe.learn.threads or available_cores())
        device = self._accelerator.device
        self._bf16 = chosen_dtype(recipe, device) == torch.bfloat16
        self.opened: Opened = open_to_learn(base, recipe, str(device), chosen_dtype(recipe, device))
        self._reader = Reader(base.folder, base.manifest)
        self._learns = {n: w for n, w in self.opened.scorer.named_parameters() if w.requires_grad}
        optimizer = new_optimizer(self._learns, recipe)
        self._scorer, self._optimizer = self._accelerator.prepare(self.opened.scorer, optimizer)
        self._at = Progressed()
        if (out / CHECKPOINT).exists():
            self._load()

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self._accelerator.is_main_process)

    @property
    def steps(self) -> int:
        """The step whose weights the model has when the run has finished."""
        return self._at.best_step if self._parts.dev else self._at.step

    def finish(self) -> None:
        """Runs what is left; then the model has the weights that the dev part liked best.

        Fails with a ConfigurationError where the loss is no number.
        """
        # Trackers take plain values alone.
        self._accelerator.init_trackers("medreward", {"recipe": self._recipe.model_dump_json()})
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        shown = self._console.is_terminal and self.leads
        with Progress(*columns, console=self._console, disable=not shown) as bar:
            task = bar.add_task("learning", total=self._recipe.learn.steps, completed=self._at.step)
            self._run(lambda: bar.update(task, completed=self._at.step))
        self._save()
        self._accelerator.wait_for_everyone()  # the first process writes what all read
        if self._parts.dev:
            self._put(load_file(self._out / BEST))
        self._accelerator.end_training()

    def _run(self, after_step: Callable[[], None]) -> None:
        learn, examples = self._recipe.learn, len(self._parts.train)
        began = saved = time.monotonic()
        total = 0.0
        while self._at.step < learn.steps and not self._is_enough():
            total += self._learn(batch_at(examples, learn.batch, self._recipe.seed, self._at.step))
            self._at.step += 1
            after_step()
            if self._at.step % LOG_STEPS == 0:
                self._log(loss=total / LOG_STEPS, seconds=time.monotonic() - began)
                total = 0.0
            if self._at.step % learn.evaluate_steps == 0 or self._at.step == learn.steps:
                self._evaluate()
            if time.monotonic() - saved > 60 * learn.checkpoint_minutes:
                self._save()
                saved = time.monotonic()

    def _is_enough(self) -> bool:
        patience = self._recipe.learn.patience
        return bool(patience and self._parts.dev and self._at.worse >= patience)

    def _learn(self, batch: Places) -> float:
        """Takes one step on the batch, of which this process runs its share, and returns the loss of that share."""
        recipe, accelerator = self._recipe, self._accelerator
        of = counts([self._parts.train[place] for place in batch])
        mine = batch[accelerator.process_index :: accelerator.num_processes]
        share = rate_at(self._at.step / recipe.learn.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["full"] * share
        self._optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        starts = range(0, len(mine), recipe.learn.at_once)
        for start in starts:
            last = start == starts[-1]
            with nullcontext() if last else accelerator.no_sync(self._scorer):
                part = self._loss(mine[start : start + recipe.learn.at_once], of)
                # Gradients of several processes are averaged, and each has a part of the sum.
                accelerator.backward(part * accelerator.num_processes)
            loss += float(part.detach())
        if not math.isfinite(loss):
            raise ConfigurationError(
                f"the loss at step {self._at.step} is {loss}: lower learn.rate and learn.head_rate"
            )
        accelerator.clip_grad_norm_([*self._learns.values()], 1.0)
        self._optimizer.step()
        return loss

    def _loss(self, places: Places, of: Counts) -> Tensor:
        examples = [self._parts.train[place] for place in places]
        logits = self._logits(examples)
        seen = seen_by(places, self._recipe).to(logits.device)
        return step_loss(logits, examples, seen, of, self._recipe.loss)

    def _logits(self, examples: Sequence[Example]) -> Tensor:
        with torch.autocast(self._accelerator.device.type, torch.bfloat16, enabled=self._bf16):
            logits: Tensor = self._scorer([as_group(self._reader, example) for example in examples])
        return logits

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Reads the dev part, and keeps the weights if they are the best so far."""
        dev, size = self._parts.dev, self._recipe.learn.at_once
        if not dev:
            return
        of, loss, logits = counts(dev), 0.0, []
        for some in (dev[start : start + size] for start in range(0, len(dev), size)):
            found = self._logits(some)
            every = torch.ones(len(some), found.shape[1], device=found.device)
            loss += float(step_loss(found, some, every, of, self._recipe.loss))
            logits.append(found.double().mean(1).cpu().numpy())
        if loss < self._at.best:
            self._at.best, self._at.best_step, self._at.worse = loss, self._at.step, 0
            if self.leads:
                _replace(self._out / BEST, lambda path: save_file(self._weights(), path))
        else:
            self._at.worse += 1
        right = shares_right(ahead(np.concatenate(logits), dev))
        self._log(**{"dev/loss": loss, **{f"dev/{name}": share for name, share in right.items()}})
        if self.leads:
            told = ", ".join(f"{name} {share:.1%}" for name, share in right.items())
            self._console.print(f"step {self._at.step}: dev loss {loss:.4f}; right: {told}", highlight=False)

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().cpu().contiguous() for name, weight in self._learns.items()}

    @torch.no_grad()
    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, weight in self._learns.items():
            weight.copy_(weights[name])

    def _log(self, **numbers: float) -> None:
        if self.leads:
            with (self._out / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self._at.step, **numbers}) + "\n")
        self._accelerator.log(numbers, step=self._at.step)

    def _save(self) -> None:
        if not self.leads:
            return
        at = self._at
        state = {
            "at": [at.step, at.best, at.best_step, at.worse],
            "weights": self._weights(),
            "optimizer": self._optimizer.state_dict(),
        }
        _replace(self._out / CHECKPOINT, lambda path: torch.save(state, path))

    def _load(self) -> None:
        state = torch.load(self._out / CHECKPOINT, weights_only=True, map_location="cpu")
        self._at = Progressed(*state["at"])
        self._put(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])


def accelerator(recipe: Recipe, out: Path) -> Accelerator:
    """Returns accelerate's view of the devices; fails where a tracker that the recipe names is not installed."""
    for name in recipe.learn.track:
        if find_spec(name) is None:
            raise ConfigurationError(f"learn.track names {name}, which is not installed: pip install {name}")
    # A batch of texts alone leaves the vision tower without a gradient.
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(log_with=[*recipe.learn.track] or None, project_dir=str(out), kwargs_handlers=[parallel])


def chosen_dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    """Returns the type to compute in. `auto` is bf16 on CUDA devices that have it, and fp32 elsewhere."""
    if recipe.learn.dtype != "auto":
        return DTYPES[recipe.learn.dtype]
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def new_optimizer(learns: Mapping[str, Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    """Returns AdamW, with a learning rate of their own for the heads and no decay for vectors."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, weight in learns.items():
        rate = recipe.learn.head_rate if name.startswith("heads.") else recipe.learn.rate
        groups.setdefault((rate, recipe.learn.weight_decay if weight.ndim > 1 else 0.0), []).append(weight)
    return torch.optim.AdamW(
        [{"params": group, "weight_decay": decay, "full": rate} for (rate, decay), group in groups.items()],
        betas=(0.9, 0.98),
    )


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file whole or not at all."""
    draft = path.with_name(f"{path.name}.tmp")
    write(draft)
    draft.replace(path)
