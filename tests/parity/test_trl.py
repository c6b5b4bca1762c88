"""Losses and their inputs against TRL's trainers on the same pairs."""

import pytest
import torch
from datasets import Dataset

from laser.training.losses import Objective, PairLogps, dpo_loss, kto_loss, nll_loss
from tiny import make_model, make_tokenizer

trl = pytest.importorskip("trl", reason="trl is not installed; run make test")

ROWS = [
    {"prompt": "say one ", "chosen": "uno dos", "rejected": "zwei"},
    {"prompt": "colour? ", "chosen": "red", "rejected": "a long way to nowhere"},
    {"prompt": "x", "chosen": "yes", "rejected": "no"},
]
BETA = 0.3


def trainer_for(kind, config, tmp_path, rows, **options):
    model, reference = make_model(0), make_model(1)
    model.requires_grad_(True)
    arguments = config(
        output_dir=str(tmp_path), beta=BETA, per_device_train_batch_size=len(rows), report_to=[], bf16=False,
        gradient_checkpointing=False, max_length=128, use_cpu=True, **options,
    )  # fmt: skip
    return kind(
        model=model, ref_model=reference, args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=make_tokenizer(),
    ), model, reference  # fmt: skip


def their_batch(trainer):
    return next(iter(trainer.get_train_dataloader()))


def logps(model, row, key):
    """log pi(y | x) and its length, for the tokens TRL trains on: the text and an end token."""
    tokenizer = make_tokenizer()
    prompt = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
    response = [*tokenizer(row[key], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    table = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
    total = sum(table[len(prompt) - 1 + t, token] for t, token in enumerate(response))
    return total, len(response)


def pair_logps(model, reference, rows):
    def column(which, key):
        return torch.stack([logps(which, row, key)[0] for row in rows])

    lengths = torch.tensor([float(logps(model, row, "chosen")[1]) for row in rows])
    columns = [column(which, key) for which in (model, reference) for key in ("chosen", "rejected")]
    return PairLogps(*columns, lengths)


def test_dpo(tmp_path):
    trainer, model, reference = trainer_for(trl.DPOTrainer, trl.DPOConfig, tmp_path, ROWS)
    theirs = trainer.compute_loss(model, their_batch(trainer))
    p = pair_logps(model, reference, ROWS)
    ours = dpo_loss(p.policy_chosen, p.policy_rejected, p.reference_chosen, p.reference_rejected, beta=BETA).mean()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["chosen"])
def test_nll_and_nll_plus_dpo_of_one_pair(tmp_path, row):
    """TRL averages its "sft" term over all tokens of a micro-batch: of one pair it is the loss of the response."""
    options = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 1.0]}
    trainer, model, reference = trainer_for(trl.DPOTrainer, trl.DPOConfig, tmp_path, [row], **options)
    theirs = trainer.compute_loss(model, their_batch(trainer))
    p = pair_logps(model, reference, [row])
    parts = Objective("nll+dpo", beta=BETA).parts(p, torch.zeros(()))
    assert sum(parts.values()).item() == pytest.approx(theirs.item(), abs=1e-5)
    assert parts["nll"].item() == pytest.approx(nll_loss(p.policy_chosen, p.chosen_lengths).item())


def test_kto(tmp_path):
    rows = [
        {"prompt": row["prompt"], "completion": row[key], "label": key == "chosen"}
        for row in ROWS
        for key in ("chosen", "rejected")
    ]
    options = {"train_sampling_strategy": "sequential"}
    trainer, model, reference = trainer_for(trl.KTOTrainer, trl.KTOConfig, tmp_path, rows, **options)
    theirs = trainer.compute_loss(model, their_batch(trainer))
    policy = torch.stack([logps(model, row, "completion")[0] for row in rows])
    referenced = torch.stack([logps(reference, row, "completion")[0] for row in rows])
    moved = [{**row, "completion": rows[i - 1]["completion"]} for i, row in enumerate(rows)]
    mismatched = [logps(model, row, "completion")[0] - logps(reference, row, "completion")[0] for row in moved]
    kl = torch.stack(mismatched).mean().clamp(min=0).detach()
    desirable = torch.tensor([row["label"] for row in rows])
    ours = kto_loss(policy, referenced, desirable, kl, beta=BETA).mean()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
