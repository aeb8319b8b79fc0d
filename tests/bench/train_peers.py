"""Peers of the training loop on the same packed lines: `python train_peers.py {trainer|trl} TASK.json`.

Needs torch and transformers, and trl for `trl`; nothing of this repository, so any environment can run it. Prints JSON:
the seconds and tokens of each step after the warm-up, and the loss of each step.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    DataCollatorWithFlattening,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class Clock(TrainerCallback):
    """Notes the wall time of every step and the logged losses."""

    def __init__(self) -> None:
        self.begun, self.seconds, self.losses = 0.0, [], []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        _wait()
        self.begun = self.begun or time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        _wait()
        # From end to end, so that collating counts, as it does in our loop.
        now = time.perf_counter()
        self.seconds.append(now - self.begun)
        self.begun = now

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Train on the task's lines and print the figures."""
    kind, task = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    if "config" in task:  # random weights
        with torch.device(task["device"]):
            model = LlamaForCausalLM._from_config(
                LlamaConfig(**task["config"]), attn_implementation=task["attention"], dtype=torch.float32
            )
    else:
        model = LlamaForCausalLM.from_pretrained(
            task["base"], attn_implementation=task["attention"], dtype=torch.float32, use_safetensors=True
        )
    # With the default, packed rows see each other (and the peers would be faster by it).
    model.config.use_cache = False
    shared = {
        "output_dir": task["out"],
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": task["accumulation"],
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "bf16": task["bf16"],
        "use_cpu": task["device"] == "cpu",
        "dataloader_num_workers": 0,
        "gradient_checkpointing": task["checkpointing"],
    }
    clock = Clock()
    trainer = (_trainer if kind == "trainer" else _trl)(model, task, shared, clock)
    trainer.train()
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    print(json.dumps({"seconds": clock.seconds, "losses": clock.losses, "peak_gpu_bytes": peak}))


def _trainer(model: Any, task: dict[str, Any], shared: dict[str, Any], clock: Clock) -> Any:
    flatten = DataCollatorWithFlattening()

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    # One item is a whole line: its rows in our order.
    lines = [{"rows": [{"input_ids": ids} for ids in line]} for line in task["lines"]]
    return InOrder(
        model,
        TrainingArguments(**shared, remove_unused_columns=False),
        data_collator=lambda items: flatten(items[0]["rows"]),
        train_dataset=lines,
        callbacks=[clock],
    )


def _trl(model: Any, task: dict[str, Any], shared: dict[str, Any], clock: Clock) -> Any:
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = {"<unk>": 0, "<s>": 1, "</s>": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")), eos_token="</s>", pad_token="</s>"
    )
    rows = Dataset.from_dict({"input_ids": [ids for line in task["lines"] for ids in line]})
    packing = {"packing": True, "packing_strategy": "bfd", "max_length": task["capacity"]}
    return SFTTrainer(
        model, args=SFTConfig(**shared, **packing), train_dataset=rows, processing_class=tokenizer, callbacks=[clock]
    )


if __name__ == "__main__":
    main()
