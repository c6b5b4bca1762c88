"""Labeled pairs: a prompt, a better and a worse response."""

from laser.data.tasks.prompts import PLAIN
from laser.data.tasks.task import Hub, Sizes, Task

_SECTIONS = {
    "Chat": "alpacaeval-easy alpacaeval-length alpacaeval-hard mt-bench-easy mt-bench-med",
    "Chat Hard": (
        "mt-bench-hard llmbar-natural llmbar-adver-neighbor llmbar-adver-GPTInst llmbar-adver-GPTOut "
        "llmbar-adver-manual"
    ),
    "Safety": "refusals-dangerous refusals-offensive xstest-should-refuse xstest-should-respond donotanswer",
    "Reasoning": "math-prm hep-cpp hep-go hep-java hep-js hep-python hep-rust",
}
REWARDBENCH_SECTIONS = {subset: section for section, subsets in _SECTIONS.items() for subset in subsets.split()}
"""Section of each subset of RewardBench (Lambert et al. 2024)."""

_ALL = Sizes(None, 0, 0)

REWARDBENCH = Task(
    name="rewardbench",
    title="RewardBench",
    kind="preferences",
    layout="rewardbench",
    files=(("test", "filtered*.jsonl"), ("test", "filtered*.json"), ("test", "filtered*.parquet")),
    columns="{prompt, chosen, rejected, subset} as Parquet, JSON Lines or one JSON list",
    counts="2,985 pairs in 23 subsets of 4 sections",
    sizes=_ALL,
    template=PLAIN,
    hub=Hub("allenai/reward-bench", (("test", "filtered"),)),
    has_pairs=True,
    license="ODC-BY",
    citation="Lambert et al. 2024, RewardBench: Evaluating Reward Models for Language Modeling, arXiv 2403.13787",
    notes=(
        "Categories are its sections (Chat, Chat Hard, Safety, Reasoning); category_field = 'subset' gives the "
        "subsets. The paper trains its classifier baseline on 80% of it."
    ),
)

LLMBAR = Task(
    name="llmbar",
    title="LLMBar",
    kind="preferences",
    layout="llmbar",
    files=(
        ("test", "LLMBar/*/dataset.json"),
        ("test", "Adversarial/*/dataset.json"),
        ("test", "Processed/*/dataset.json"),
    ),
    columns="the original folders LLMBar and Processed: */dataset.json of [{input, output_1, output_2, label}]",
    counts="419 pairs, and 466 of three other sets with human labels",
    sizes=_ALL,
    template=PLAIN,
    has_pairs=True,
    stands_in_for="rewardbench",
    license="MIT",
    citation="Zeng et al. 2023, Evaluating Large Language Models at Evaluating Instruction Following, arXiv 2310.07641",
    notes=(
        "A stand-in: its 419 pairs are the llmbar subsets of RewardBench. Categories are its folders. One pair with an "
        "empty response and one with equal responses are left out. Its hub entry is a script that no longer runs."
    ),
)

RM_BENCH = Task(
    name="rm_bench",
    title="RM-Bench",
    kind="preferences",
    layout="rm_bench",
    files=(("test", "*_filtered.json"), ("test", "total_dataset.json")),
    columns="DOMAIN_filtered.json or total_dataset.json: [{id, prompt, chosen: [3], rejected: [3]}] in three styles",
    counts="1,327 prompts, 9 comparisons each (798 without mathematics)",
    sizes=_ALL,
    template=PLAIN,
    hub=Hub("THU-KEG/RM-Bench", (("test", "train"),)),
    has_pairs=True,
    stands_in_for="rewardbench",
    license="ODC-BY by its hub card; none in its repository",
    citation="Liu et al. 2024, RM-Bench: Benchmarking Reward Models with Subtlety and Style, arXiv 2410.16184",
    notes=(
        "A stand-in. A prompt makes nine pairs; the category is the pair of styles ('concise > markdown': the right "
        "answer is the concise one). category_field = 'difficulty' (easy, normal, hard) or 'domain' gives another. Its "
        "chat prompts are AlpacaEval's."
    ),
)

HH_RLHF = Task(
    name="hh_rlhf",
    title="HH-RLHF, harmless",
    kind="preferences",
    layout="hh_rlhf",
    files=(
        ("train", "*train.jsonl.gz"),
        ("test", "*test.jsonl.gz"),
        ("train", "*train.jsonl"),
        ("test", "*test.jsonl"),
    ),
    columns='JSON Lines, gzipped or not: {chosen, rejected}, dialogues of "\\n\\nHuman:" and "\\n\\nAssistant:" turns',
    counts="harmless-base: 42,537 train, 2,312 test",
    sizes=_ALL,
    template=PLAIN,
    hub=Hub(
        "Anthropic/hh-rlhf",
        (("train", "train"), ("test", "test")),
        configs=("harmless-base",),
        files="{config}/{split}.jsonl.gz",
    ),
    has_pairs=True,
    stands_in_for="rewardbench",
    license="MIT",
    citation="Bai et al. 2022, Training a Helpful and Harmless Assistant with RLHF, arXiv 2204.05862",
    notes=(
        "A stand-in, and offensive in places. The prompt is what both dialogues share up to the assistant's turn in "
        "which they part; the rest of each is a response. Pairs with an empty response are left out."
    ),
)
