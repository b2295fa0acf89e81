"""A training elsewhere, with Hugging Face's Trainer as it comes; run by `test_hub_clients` as a program of its own."""

import os
import sys
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

from grow.callbacks import GrowCallback

folder, output, name, nowhere = sys.argv[1:]
site, token = os.environ["HF_ENDPOINT"], os.environ["HF_TOKEN"]
ids = [[5, 6, 7, 8, 9, 10, 11, 12]] * 16
options = TrainingArguments(
    output,
    max_steps=4,
    save_steps=2,
    logging_steps=1,
    per_device_train_batch_size=4,
    report_to=[],
    use_cpu=True,
    disable_tqdm=True,
    include_num_input_tokens_seen="all",
    push_to_hub=True,
    hub_model_id=name,
    hub_strategy="every_save",
    hub_always_push=True,
)
trainer = Trainer(
    AutoModelForCausalLM.from_pretrained(folder),
    options,
    train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}),
    processing_class=AutoTokenizer.from_pretrained(folder),
)


class Patience(TrainerCallback):
    """Begins no step while a save is being pushed: the next save would overwrite the files that are being sent."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Wait for it."""
        if trainer.push_in_progress is not None:
            trainer.push_in_progress.wait_until_done()


trainer.add_callback(Patience())
trainer.add_callback(GrowCallback(site, run=f"{name}-callback", token=token))
# A site that is away changes nothing.
trainer.add_callback(GrowCallback(nowhere, run=name, token=token, patience_seconds=0.0))
trainer.train()
assert trainer.state.global_step == 4
