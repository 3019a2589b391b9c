"""The training loop: two phases, batches made ahead, moving average, checkpoints, a log of every reading."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from safetensors.torch import save_file
from torch import Tensor, nn

from medreward.artifacts.manifest import read_manifest
from medreward.lab.training import recipe
from medreward.lab.training.attributes import Attributes
from medreward.lab.training.batches import Batch, Batches, PairBatch
from medreward.lab.training.calibrate import MEASURED, NOT_MEASURED, measured
from medreward.lab.training.corpus import Corpus
from medreward.lab.training.evaluate import DevLogits, dev_logits, report, summary
from medreward.lab.training.lite import load_lite
from medreward.lab.training.looks import Looks, looked
from medreward.lab.training.model import Model, Teacher, Vectors, attribute_vectors, pairs_loss, warm_up_loss
from medreward.lab.training.outsiders import outsiders
from medreward.lab.training.scope import KNOWN, fit_scope, summaries
from medreward.lab.training.scorer import encoder_folder, load_encoder, read_shape
from medreward.lab.training.start import load_served
from medreward.lab.training.tokens import Tokens
from medreward.lab.training.tower import Tower
from medreward.types import DIMENSIONS

CHECKPOINT: Final = "checkpoint.pt"
WEIGHTS: Final = "weights.safetensors"
SCOPE: Final = "scope.safetensors"
LOG: Final = "log.jsonl"
LOG_STEPS: Final = 20
RISE: Final = 0.06  # share of a phase in which the learning rate rises
LEAST: Final = 0.03  # of the learning rate, at the end
NEW_PARTS: Final = 3.0  # learning rate of what starts from nothing, against that of the text encoder
LEARNT: Final = 0.3  # learning rate of convolutions that start from weights for photographs, against the tower's
AHEAD: Final = 3  # batches


@dataclass(frozen=True, slots=True)
class Assembled:
    """Holds a run's parts, as its recipe and data make them."""

    settings: recipe.Recipe
    corpus: Corpus
    tokens: Tokens
    batches: Batches
    model: Model
    average: Model
    vectors: Vectors | None  # where the tower learns by name what its images show
    teacher: Teacher | None


def assemble(settings: recipe.Recipe, corpus: Corpus) -> Assembled:
    torch.manual_seed(settings.seed)
    folder = encoder_folder(settings.text.encoder)
    tokens = training_tokens(settings)
    attributes = Attributes(corpus.library.cases)
    model, average = (Model(settings, read_shape(folder), tokens.separator) for _ in range(2))
    load_encoder(model.scorer, folder)
    if settings.start:
        load_served(model.scorer, Path(settings.start) / "score.onnx", "scorer.", fresh=("salience.",))
    named = settings.warm_up.steps or settings.pairs.attribute_weight
    vectors = attribute_vectors(model, attributes, tokens, settings.seed) if named else None
    if vectors and not settings.start:
        model.scorer.asker.spread(vectors.questions, vectors.answers.flatten(0, 1))
    if model.tower.lite:
        load_lite(model.tower.lite, settings.tower.start)
    elif settings.start:
        load_served(model.tower, Path(settings.start) / "image.onnx")
    average.load_state_dict(model.state_dict())
    names = [*corpus.library.by_image, *(group.image for group in corpus.exact if group.image)]

    def look(tower: Tower, views: int) -> Looks:
        every = list(dict.fromkeys(names))
        return looked(tower, corpus.images, every, corpus.library.sideless, views, settings.precision, corpus.cache)

    seen = corpus.images if settings.tower.fixed == "nothing" else look(model.tower, settings.tower.views)
    teacher = read_teacher(settings, tokens) if settings.pairs.hold else None
    known = look(teacher.model.tower, 1) if teacher else None
    batches = Batches(settings, corpus.library, corpus.exact, corpus.texts, seen, attributes, tokens, known)
    for each in (model, average):
        each.tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Assembled(settings, corpus, tokens, batches, model, average.eval(), vectors, teacher)


def read_teacher(settings: recipe.Recipe, tokens: Tokens) -> Teacher:
    """Returns the served model that the recipe starts from, as it is."""
    folder, encoder = Path(settings.start), encoder_folder(settings.text.encoder)
    tower = settings.tower.model_copy(update={"start": "", "fixed": "nothing"})
    model = Model(settings.model_copy(update={"tower": tower}), read_shape(encoder), tokens.separator)
    load_encoder(model.scorer, encoder)
    load_served(model.scorer, folder / "score.onnx", "scorer.", fresh=("salience.",))
    load_served(model.tower, folder / "image.onnx")
    model.tower.fixed = "all"
    levels = read_manifest(folder / "model.toml").calibration
    scale = torch.tensor([levels[name].scale for name in DIMENSIONS])
    weights = torch.tensor([settings.pairs.hold.get(name, 0.0) for name in DIMENSIONS])
    return Teacher(model.eval(), scale, weights)


def training_tokens(settings: recipe.Recipe) -> Tokens:
    folder = encoder_folder(settings.text.encoder)
    return Tokens(folder / "tokenizer.json", settings.text.train_tokens, settings.text.buckets, settings.reading.run)


class Run:
    """A training run in a folder; goes on where the folder's checkpoint stopped."""

    def __init__(self, parts: Assembled, out: Path, console: Console) -> None:
        self._parts = parts
        self._out = out
        self._console = console
        self._phase = "warm_up"
        self._step = 0  # of the phase
        self._elapsed = 0.0  # seconds of the phase
        self._optimizer = self._new_optimizer()
        self._workers = ThreadPoolExecutor(parts.settings.side_by_side, thread_name_prefix="batch")
        self._saved = self._evaluated = time.monotonic()
        out.mkdir(parents=True, exist_ok=True)
        if (out / CHECKPOINT).exists():
            self._load()

    def finish(self) -> dict[str, Any]:
        """Runs what is left and returns the last reading of the dev pairs."""
        torch.set_num_threads(self._parts.settings.threads)
        if self._phase == "warm_up":
            self._run(self._parts.settings.warm_up, self._parts.batches.warm_up, self._warm_up_loss)
            self._phase, self._step, self._elapsed = "pairs", 0, 0.0
            self._optimizer = self._new_optimizer()
            self._save()
        if self._phase == "pairs":
            self._run(self._parts.settings.pairs, self._parts.batches.pairs, self._pairs_loss)
            self._phase = "done"
            self._save()
        save_weights(self._parts.average, self._out / WEIGHTS)
        self._fit_scope()
        tables, logits = self._evaluate(exact=True)
        found = measured(self._parts.corpus.dev, logits) if logits else NOT_MEASURED
        (self._out / MEASURED).write_text(found.model_dump_json(indent=1) + "\n", "utf-8")
        return tables

    def _run(
        self, shape: recipe.Phase, make: Callable[[int], Any], loss_of: Callable[[Any], dict[str, Tensor]]
    ) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as bar:
            task = bar.add_task(self._phase, total=shape.steps, completed=self._step)
            began = time.monotonic() - self._elapsed
            total: dict[str, float] = {}
            count = self._parts.settings.side_by_side

            def several(step: int) -> list[Any]:
                return [make(step * count + number) for number in range(count)]

            for batches in self._ahead(several, shape.steps):
                progress = max(self._step / shape.steps, self._elapsed / (60 * shape.minutes))
                if progress >= 1:
                    break
                for name, value in self._learn(loss_of, batches, rate_at(progress)).items():
                    total[name] = total.get(name, 0.0) + value / LOG_STEPS
                self._step += 1
                self._elapsed = time.monotonic() - began
                bar.update(task, completed=self._step)
                if self._step % LOG_STEPS == 0:
                    self._log(losses={name: round(value, 4) for name, value in total.items()})
                    total = {}
                if time.monotonic() - self._saved > 60 * self._parts.settings.checkpoint_minutes:
                    self._save()
                if time.monotonic() - self._evaluated > 60 * self._parts.settings.evaluate_minutes:
                    self._evaluate()

    def _ahead(self, make: Callable[[int], Any], steps: int) -> Iterator[Any]:
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            waiting = [pool.submit(make, step) for step in range(self._step, min(self._step + AHEAD, steps))]
            following = self._step + len(waiting)
            while waiting:
                batch = waiting.pop(0).result()
                if following < steps:
                    waiting.append(pool.submit(make, following))
                    following += 1
                yield batch

    def _learn(self, loss_of: Callable[[Any], dict[str, Tensor]], batches: list[Any], rate: float) -> dict[str, float]:
        for group in self._optimizer.param_groups:
            group["lr"] = group["full"] * rate
        self._parts.model.train()
        self._optimizer.zero_grad(set_to_none=True)

        def backward(batch: Any) -> dict[str, Tensor]:
            with self._precision():
                losses = loss_of(batch)
            torch.autograd.backward(torch.stack(list(losses.values())).sum() / len(batches))
            return losses

        found = [backward(batches[0])] if len(batches) == 1 else [*self._workers.map(backward, batches)]
        nn.utils.clip_grad_norm_(self._parts.model.parameters(), 1.0)
        self._optimizer.step()
        self._follow()
        return {
            name: sum(losses[name].item() for losses in found if name in losses) / len(found)
            for name in dict.fromkeys(name for losses in found for name in losses)
        }

    def _warm_up_loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self._parts.vectors
        return warm_up_loss(self._parts.model, batch, self._parts.vectors)

    def _pairs_loss(self, batch: PairBatch) -> dict[str, Tensor]:
        return pairs_loss(
            self._parts.model, batch, self._parts.vectors, self._parts.settings.pairs, self._parts.teacher
        )

    @torch.no_grad()
    def _follow(self) -> None:
        """The average follows the weights, closely at first."""
        decay = min(self._parts.settings.average, (1 + self._step) / (10 + self._step))
        state = self._parts.model.state_dict()
        for name, mean in self._parts.average.state_dict().items():
            if name == "scorer.words.weight":
                continue
            if mean.is_floating_point():
                mean.lerp_(state[name], 1 - decay)
            else:
                mean.copy_(state[name])

    def _new_optimizer(self) -> torch.optim.Optimizer:
        settings, model = self._parts.settings, self._parts.model
        if self._phase == "warm_up":
            rate = settings.warm_up.rate
            rates = {"tower.lite.": LEARNT * rate, "tower.": rate, "scorer.asker.": rate}
        else:
            rate = settings.pairs.rate
            new = NEW_PARTS * rate
            warm = rate * settings.pairs.tower_rate
            rates = {"tower.lite.": LEARNT * warm, "tower.": warm, "scorer.asker.": warm, "scorer.": rate}
            if not settings.start:
                rates = {"scorer.head.": new, **rates}
            rates = {"scorer.salience.": new, **rates}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            rate = next((rate for start, rate in rates.items() if name.startswith(start)), 0.0)
            if not settings.start and ".look." in name and name.startswith("scorer.layers."):
                rate *= NEW_PARTS
            if rate and parameter.requires_grad:
                decay = settings.weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((rate, decay), []).append(parameter)
        return torch.optim.AdamW(
            [{"params": group, "weight_decay": decay, "full": rate} for (rate, decay), group in groups.items()],
            betas=(0.9, 0.98),
            fused=True,
        )

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._parts.settings.precision == "bf16")

    def _evaluate(self, exact: bool = False) -> tuple[dict[str, Any], DevLogits | None]:
        self._evaluated = time.monotonic()
        corpus = self._parts.corpus
        if not corpus.dev:
            return {}, None
        with nullcontext() if exact else self._precision():
            logits = dev_logits(self._parts.average, corpus.dev, corpus.images, self._parts.tokens)
        tables = report(corpus.dev, logits)
        self._log(dev=tables)
        self._console.print(f"{self._phase} step {self._step}: {summary(tables)}", highlight=False)
        return tables, logits

    def _fit_scope(self) -> None:
        corpus, tower = self._parts.corpus, self._parts.average.tower
        new = sorted({pair.image for pair in corpus.dev})
        if new and not (self._out / SCOPE).exists():
            known = sorted(corpus.library.by_image)
            chosen = [known[place] for place in np.random.default_rng(0).permutation(len(known))[:KNOWN]]
            seen = (corpus.images[chosen], corpus.images[new], outsiders(self._parts.settings.tower.side))
            scope = fit_scope(*(summaries(tower, pixels) for pixels in seen))
            save_weights(scope, self._out / SCOPE)

    def _log(self, **what: Any) -> None:
        line = {"phase": self._phase, "step": self._step, "seconds": round(self._elapsed, 1), **what}
        with (self._out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        state = {
            "phase": self._phase,
            "step": self._step,
            "elapsed": self._elapsed,
            "model": self._parts.model.state_dict(),
            "average": self._parts.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        draft = self._out / f"{CHECKPOINT}.tmp"
        torch.save(state, draft)
        draft.replace(self._out / CHECKPOINT)
        self._saved = time.monotonic()

    def _load(self) -> None:
        state = torch.load(self._out / CHECKPOINT, weights_only=True)
        self._phase, self._step, self._elapsed = state["phase"], state["step"], state["elapsed"]
        self._parts.model.load_state_dict(state["model"])
        self._parts.average.load_state_dict(state["average"])
        self._optimizer = self._new_optimizer()
        rates = [group["full"] for group in self._optimizer.param_groups]
        self._optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["full"] = rate  # the recipe's, not that of the checkpoint


def rate_at(progress: float) -> float:
    """Returns the share of the full rate: up in a line, down in a cosine."""
    if progress < RISE:
        return max(progress / RISE, 0.02)
    return LEAST + (1 - LEAST) * 0.5 * (1 + cos(pi * (progress - RISE) / (1 - RISE)))


def save_weights(model: nn.Module, path: Path) -> None:
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
