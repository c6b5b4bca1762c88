"""Tasks with short gold answers."""

from laser.data.tasks.prompts import REASONING
from laser.data.tasks.task import Hub, Sizes, Task

GSM8K = Task(
    name="gsm8k",
    title="GSM8K",
    kind="reasoning",
    layout="gsm8k",
    files=(("train", "train.jsonl"), ("test", "test.jsonl")),
    columns='JSON Lines {question, answer}; the gold answer follows "####" in `answer`',
    counts="7,473 train, 1,319 test",
    sizes=Sizes(6750, 750, 1000, source="Table 3"),
    template=REASONING,
    metric="accuracy",
    answer_type="number",
    hub=Hub("openai/gsm8k", (("train", "train"), ("test", "test")), configs=("main",)),
    license="MIT",
    citation="Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems, arXiv 2110.14168",
    notes=(
        "Table 3 lists 7,500 prompts for training and development, 27 more than the original training split has. The "
        "27 are test questions that our test split does not use. Lower split.train to 6,723 to avoid them."
    ),
)

STRATEGYQA = Task(
    name="strategyqa",
    title="StrategyQA",
    kind="reasoning",
    layout="strategyqa",
    files=(("train", "train.json"), ("train", "strategyqa_train.json"), ("dev", "dev.json")),
    columns="one JSON list of {qid, question, answer: true or false}",
    counts="2,290 labeled (2,061 train and 229 dev in the usual division)",
    sizes=Sizes(1946, 278, 556, source="Table 3"),
    template=REASONING,
    metric="accuracy",
    answer_type="yes_no",
    hub=Hub("ChilleD/StrategyQA", (("train", "train"), ("test", "test"))),
    license="MIT",
    citation="Geva et al. 2021, Did Aristotle Use a Laptop?, TACL, arXiv 2101.02235",
    notes=(
        "Table 3 counts 2,780 questions, among them the 490 of the official test set, whose answers are not public. "
        "The 2,290 labeled ones are divided in the same proportions: 1,603, 229 and 458."
    ),
)

MMLU = Task(
    name="mmlu",
    title="MMLU",
    kind="reasoning",
    layout="mmlu",
    files=(("dev", "dev/*_dev.csv"), ("dev", "val/*_val.csv"), ("test", "test/*_test.csv")),
    columns="the original archive, zipped or not: {dev,val,test}/SUBJECT_SPLIT.csv of question, A, B, C, D, letter",
    counts="285 dev, 1,531 val, 14,042 test; 57 subjects",
    sizes=Sizes(11135, 1591, 3182, source="Table 3"),
    template=REASONING,
    metric="accuracy",
    answer_type="option",
    hub=Hub("cais/mmlu", (("dev", "dev"), ("dev", "validation"), ("test", "test")), configs=("all",)),
    license="MIT",
    citation="Hendrycks et al. 2021, Measuring Massive Multitask Language Understanding, arXiv 2009.03300",
    notes=(
        "Table 3 counts 15,908 questions; the files hold 15,858, of which 15,717 differ, and are divided in the same "
        "proportions. Options are written A. to D. below the question, which the paper does not specify. Categories "
        "are the four groups of the authors; category_field = 'subject' gives the 57 subjects."
    ),
)

COMMONSENSEQA = Task(
    name="commonsenseqa",
    title="CommonsenseQA",
    kind="reasoning",
    layout="commonsenseqa",
    files=(("train", "train_rand_split.jsonl"), ("test", "dev_rand_split.jsonl")),
    columns="JSON Lines {id, answerKey, question: {stem, choices: [{label, text}]}}",
    counts="9,741 train, 1,221 dev (the answers of its test split are not public)",
    sizes=Sizes(None, 500, 1221),
    template=REASONING,
    metric="accuracy",
    answer_type="option",
    hub=Hub("tau/commonsense_qa", (("train", "train"), ("test", "validation"))),
    license="MIT",
    citation="Talmor et al. 2019, CommonsenseQA, NAACL, arXiv 1811.00937",
    notes="Out of distribution in the paper (Table 14). The official dev split is the test split here.",
)

MATH = Task(
    name="math",
    title="MATH",
    kind="reasoning",
    layout="math",
    files=(("train", "train/*/*.json"), ("test", "test/*/*.json"), ("train", "train.jsonl"), ("test", "test.jsonl")),
    columns=(
        "the original folders {train,test}/SUBJECT/NUMBER.json of {problem, level, type, solution}, or JSON Lines of "
        "the same; the gold answer is in the last \\boxed{} of the solution unless there is an `answer`"
    ),
    counts="7,500 train, 5,000 test",
    sizes=Sizes(None, 500, 5000),
    template=REASONING,
    metric="accuracy",
    answer_type="math",
    hub=Hub(
        "EleutherAI/hendrycks_math",
        (("train", "train"), ("test", "test")),
        configs=(
            "algebra",
            "counting_and_probability",
            "geometry",
            "intermediate_algebra",
            "number_theory",
            "prealgebra",
            "precalculus",
        ),
    ),
    license="MIT",
    citation="Hendrycks et al. 2021, Measuring Mathematical Problem Solving With the MATH Dataset, arXiv 2103.03874",
    notes="Out of distribution in the paper (Table 14). Answers are compared by math-verify (laser-rm[eval]).",
)

MATH500 = Task(
    name="math500",
    title="MATH-500",
    kind="reasoning",
    layout="math",
    files=(("test", "test.jsonl"),),
    columns="JSON Lines {problem, solution, answer, subject, level, unique_id}",
    counts="500 test",
    sizes=Sizes(None, 100, 200),
    template=REASONING,
    metric="accuracy",
    answer_type="math",
    hub=Hub("HuggingFaceH4/MATH-500", (("test", "test"),)),
    stands_in_for="math",
    license="MIT",
    citation="Lightman et al. 2023, Let's Verify Step by Step, arXiv 2305.20050",
    notes="A subset of MATH's test split. Answers are compared by math-verify (laser-rm[eval]).",
)

STRATEGYQA_BIGBENCH = Task(
    name="strategyqa_bigbench",
    title="StrategyQA, the BIG-bench file",
    kind="reasoning",
    layout="bigbench_yes_no",
    files=(("train", "task.json"),),
    columns='BIG-bench task.json: {examples: [{input, target_scores: {"Yes", "No"}, target}]}',
    counts="2,290",
    sizes=Sizes(1946, 278, 556, source="Table 3"),
    template=REASONING,
    metric="accuracy",
    answer_type="yes_no",
    hub=Hub("tasksource/bigbench", (("train", "train"), ("test", "validation")), configs=("strategyqa",)),
    stands_in_for="strategyqa",
    license="Apache-2.0",
    citation="Geva et al. 2021, arXiv 2101.02235, in BIG-bench (Srivastava et al. 2022, arXiv 2206.04615)",
    notes="The same questions as strategyqa, the words slightly edited: never train on one and test on the other.",
)
