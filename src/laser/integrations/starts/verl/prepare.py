"""Write prompts.jsonl as the Parquet files that verl reads; every tenth prompt is for validation."""

import json
from pathlib import Path

import pandas

rows = [json.loads(line) for line in Path("prompts.jsonl").read_text(encoding="utf-8").splitlines()]
table = [
    {
        "data_source": row["category"],
        "prompt": row["prompt"],
        "reward_model": {"style": "rule", "ground_truth": row["answer"]},
        "extra_info": {"index": number},
    }
    for number, row in enumerate(rows)
]
pandas.DataFrame([row for number, row in enumerate(table) if number % 10]).to_parquet("train.parquet")
pandas.DataFrame(table[::10]).to_parquet("val.parquet")
