"""Tasks without gold answers, such as requests of users to assistants, and the user's files."""

from laser.data.tasks.prompts import INSTRUCTION, PLAIN
from laser.data.tasks.task import Hub, Sizes, Task

WILDCHAT_CATEGORIES = ("creative", "analysis", "coding", "factual", "math")
"""The paper's five; a label belongs to the one whose name it contains."""

WILDCHAT = Task(
    name="wildchat",
    title="WildChat",
    kind="instructions",
    layout="wildchat",
    files=(("train", "*.jsonl"), ("train", "*.parquet")),
    columns=(
        "JSON Lines or Parquet {conversation: [{role, content}], language}, the prompt being the first user message; "
        "a column `category` if the prompts are labeled"
    ),
    counts="837,989 conversations (WildChat-1M without the toxic ones)",
    sizes=Sizes(3500, 500, 1000, per_category=True, source="Table 3"),
    template=INSTRUCTION,
    hub=Hub("allenai/WildChat-1M", (("train", "train"),)),
    categories=WILDCHAT_CATEGORIES,
    classifier="valpy/prompt-classification",
    limit=5000,
    by_category=True,
    license="ODC-BY",
    citation="Zhao et al. 2024, WildChat: 1M ChatGPT Interaction Logs in the Wild, arXiv 2405.01470",
    notes=(
        "The set has no categories: data.classifier, by default the paper's, labels prompts without a label; "
        "local files may have a column `category`, or another named by data.category_field. A label counts for the "
        "category whose name it contains ('assisting or creative writing' is creative); other prompts are left out, "
        "and so are conversations in other languages than English, which the paper does not mention. The set is "
        "streamed; of each category data.limit prompts are kept, drawn uniformly by a seeded hash, which takes a pass "
        "over all of it: data.max_rows reads its beginning only. Batches hold one category each."
    ),
)

ALPACA_EVAL = Task(
    name="alpaca_eval",
    title="AlpacaEval",
    kind="instructions",
    layout="alpaca_eval",
    files=(("test", "*annotations.json"), ("test", "model_outputs.json"), ("test", "alpaca_eval*.json")),
    columns=(
        "JSON lists {instruction, dataset, output, generator}, or annotations {instruction, dataset, output_1, "
        "output_2, preference: 1, 2, or weighted between them}"
    ),
    counts="805 prompts; annotations: 805 per model",
    sizes=Sizes(0, 0, 805, source="the paper's test set"),
    template=INSTRUCTION,
    hub=Hub("tatsu-lab/alpaca_eval", (("test", "eval"),), files="alpaca_eval.json"),
    has_pairs=True,
    license="CC BY-NC 4.0 (non-commercial)",
    citation="Li et al. 2023, AlpacaEval; Dubois et al. 2024, Length-Controlled AlpacaEval, arXiv 2404.04475",
    notes=(
        "The paper's test of instruction following; all of it is the test split, so that a run that trains on it "
        "has to set split.train and split.test. Annotations also make labeled pairs (`laser tasks export --pairs`), "
        "by GPT-4's verdict, not a human's; ties are left out. Prompts are shared with llmbar, rm_bench and flask."
    ),
)

MT_BENCH = Task(
    name="mt_bench",
    title="MT-Bench",
    kind="instructions",
    layout="mt_bench",
    files=(("test", "question.jsonl"),),
    columns="JSON Lines {question_id, category, turns: [first, second]}",
    counts="80 prompts in 8 categories",
    sizes=Sizes(None, 16, 24),
    template=INSTRUCTION,
    hub=Hub("HuggingFaceH4/mt_bench_prompts", (("test", "train"),)),
    stands_in_for="wildchat",
    license="Apache-2.0",
    citation="Zheng et al. 2023, Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, arXiv 2306.05685",
    notes="The first turn is the prompt; the second is in metadata['turns'].",
)

FLASK = Task(
    name="flask",
    title="FLASK",
    kind="instructions",
    layout="flask",
    files=(("train", "flask_evaluation.jsonl"),),
    columns="JSON Lines {idx, instruction, answer, task, skill: [...], domain: [...], difficulty}",
    counts="1,740 prompts in 10 domains and 12 skills",
    sizes=Sizes(None, 174, 348),
    template=INSTRUCTION,
    by_category=True,
    stands_in_for="wildchat",
    license="none given; for experiments only",
    citation="Ye et al. 2023, FLASK: Fine-grained Evaluation based on Alignment Skill Sets, arXiv 2307.10928",
    notes=(
        "The category is the first domain; category_field = 'skill' or 'difficulty' gives another. Reference answers "
        "are in metadata['reference'], not gold answers. Prompts are shared with self_instruct and alpaca_eval."
    ),
)

SELF_INSTRUCT = Task(
    name="self_instruct",
    title="Self-Instruct, user-oriented instructions",
    kind="instructions",
    layout="self_instruct",
    files=(("test", "user_oriented_instructions.jsonl"),),
    columns="JSON Lines {id, motivation_app, instruction, instances: [{input, output}]}",
    counts="252 prompts",
    sizes=Sizes(None, 50, 50),
    template=INSTRUCTION,
    stands_in_for="wildchat",
    license="Apache-2.0",
    citation="Wang et al. 2023, Self-Instruct, ACL, arXiv 2212.10560",
    notes="The instance's input follows the instruction; its output is in metadata['reference'].",
)

JSONL = Task(
    name="jsonl",
    title="your own file",
    kind="own",
    layout="own",
    files=(("train", "train.jsonl"), ("dev", "dev.jsonl"), ("test", "test.jsonl")),
    columns=(
        "JSON Lines or Parquet {prompt: text or chat messages, answer, category, id}, all but the prompt optional, or "
        "a folder with train.jsonl, dev.jsonl, test.jsonl; with `chosen` and `rejected` it makes labeled pairs; what "
        "`laser tasks export` writes"
    ),
    counts="yours",
    sizes=Sizes(None, 64, 0),
    template=PLAIN,
    metric="accuracy",
    has_pairs=True,
    license="yours",
    citation="-",
    notes=(
        'For other field names, or a data set on the hub, use data.type = "file" or "hub". A row may say what its '
        "answer is in `answer_type` (text, number, yes_no, option, math), what its options are in `options` "
        '({"A": "text", ...}), and list several gold answers in `answers`.'
    ),
)
