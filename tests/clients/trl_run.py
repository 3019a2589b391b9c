"""A real TRL run: a random vision-language model of a few thousand parameters, trained on the CPU against a server.

A process of its own, because the trainer's libraries warn and torch takes its time. The trainer logs every completion
and reward into OUT/completions; a line "step N" says that a step is done, the last line is the trainer's log.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features, Image, Value
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

import pictures
from medreward.clients.trl import reward_funcs
from tiny_vlm import tiny_model, tiny_processor


def conversation(n: int) -> list[dict[str, Any]]:
    def said(role: str, *parts: str | None) -> dict[str, Any]:
        content = [{"type": "image" if text is None else "text", "text": text} for text in parts]
        return {"role": role, "content": content}

    asked = said("user", None, f"question {n} is the heart enlarged")
    return [said("system", "no"), said("user", None, "the left lung"), said("assistant", "normal"), asked]


def rows(count: int, lists: bool, conversations: bool) -> Dataset:
    """A picture and a question each, no two alike. As lists, every third row has two pictures.

    As conversations, each has two pictures: one of an earlier turn and one of the question.
    """
    prompts = [[{"role": "user", "content": f"question {n} is the heart enlarged"}] for n in range(count)]
    prompt = [{"role": Value("string"), "content": Value("string")}]
    files = [{"bytes": pictures.png(n), "path": None} for n in range(count)]
    if conversations:
        part = {"type": Value("string"), "text": Value("string")}
        columns = {
            "prompt": [conversation(n) for n in range(count)],
            "images": [[files[n], files[n - 1]] for n in range(count)],
        }
        turn = {"role": Value("string"), "content": [part]}
        return Dataset.from_dict(columns, Features({"prompt": [turn], "images": [Image()]}))
    if not lists:
        return Dataset.from_dict({"prompt": prompts, "image": files}, Features({"prompt": prompt, "image": Image()}))
    listed = [[file] * (1 if n % 3 else 2) for n, file in enumerate(files)]
    return Dataset.from_dict({"prompt": prompts, "images": listed}, Features({"prompt": prompt, "images": [Image()]}))


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def without_images(turn: dict[str, Any]) -> dict[str, Any]:
    return turn | {"content": [part for part in turn["content"] if part["type"] != "image"]}


class KeepingRLOOTrainer(RLOOTrainer):
    """GRPO's trainer writes what it logs about each completion into a file; this one does the same."""

    def log(self, logs: Any, *args: Any) -> None:
        super().log(logs, *args)
        columns = {name: list(self._logs[name]) for name in ("prompt", "completion")}
        columns["prompt"] = [[without_images(turn) for turn in prompt] for prompt in columns["prompt"]]
        table = pa.table(columns | {name: list(rewards) for name, rewards in self._logs["rewards"].items()})
        folder = Path(self.args.output_dir, "completions")
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / f"{self.state.global_step}.parquet")


class TellSteps(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        tell(f"step {state.global_step}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("out", type=Path)
    parser.add_argument("--trainer", choices=["grpo", "rloo"], default="grpo")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--images", action="store_true", help="a column `images` instead of `image`")
    parser.add_argument("--conversations", action="store_true", help="two images and four turns a row")
    parser.add_argument("--per-dimension", action="store_true")
    parser.add_argument("--asynchronous", action="store_true")
    parser.add_argument("--save", action="store_true", help="a checkpoint after each step")
    parser.add_argument("--resume", action="store_true", help="from the last checkpoint in OUT")
    parser.add_argument("--pin", default=True)
    given = parser.parse_args()

    torch.set_num_threads(2)
    torch.manual_seed(0)
    processor = tiny_processor()
    settings: dict[str, Any] = {
        "output_dir": str(given.out),
        "max_steps": given.steps,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 12,
        "logging_steps": 1,
        "log_completions": True,
        "report_to": "none",
        "save_strategy": "steps" if given.save else "no",
        "save_steps": 1,
        "use_cpu": True,
        "disable_tqdm": True,
        "learning_rate": 1e-2,
        "beta": 0.0,  # RLOO would load a second model, by a name that this one has not
    }
    if given.per_dimension and given.trainer == "grpo":
        settings["multi_objective_aggregation"] = "normalize_then_sum"
    config, trainer_class = (GRPOConfig, GRPOTrainer) if given.trainer == "grpo" else (RLOOConfig, KeepingRLOOTrainer)
    trainer = trainer_class(
        model=tiny_model(processor.tokenizer),
        reward_funcs=reward_funcs(
            given.url, per_dimension=given.per_dimension, asynchronous=given.asynchronous, pin=given.pin
        ),
        args=config(**settings),
        train_dataset=rows(given.steps * 2, given.images, given.conversations),
        processing_class=processor,
        callbacks=[TellSteps()],
    )
    trainer.train(resume_from_checkpoint=given.resume)
    tell(json.dumps(trainer.state.log_history))


if __name__ == "__main__":
    main()
