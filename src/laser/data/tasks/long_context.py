"""Tasks with a long document before the question.

The paper's sizes are those of the sets behind LongBench, not LongBench's own: it has 200 rows of each, while 5,049 is
the number of questions in Qasper, and its three other prompts are those of LongBench for the passages of HotpotQA,
for Multi-News and for TriviaQA.
"""

from dataclasses import replace

from laser.data.tasks.prompts import EXAM, FEW_SHOT, MULTI_DOC_QA, SINGLE_DOC_QA, SUMMARIZATION
from laser.data.tasks.task import Hub, Role, Sizes, Task

_LONGBENCH_NOTES = (
    "LongBench has 200 rows of each set, so the paper's sizes (5,049 is the number of questions in Qasper) come from "
    "the sets behind it; what is there is divided in the same proportions. To have them all, write them as LongBench "
    "rows and set data.path. data.categories chooses the sets. Prompts beyond the policy's window lose their middle."
)
_LONGBENCH_COLUMNS = "LongBench's SET.jsonl {input, context, answers: [...]}"


def _hub(name: str, sets: tuple[str, ...]) -> Hub:
    """The hub's Parquet copy of sets whose own loader is a script."""
    return Hub(
        name,
        (("test", "test"),),
        configs=sets,
        files="{config}/{split}/*.parquet",
        revision="refs/convert/parquet",
    )


def _longbench(*sets: str) -> Hub:
    return _hub("THUDM/LongBench", sets)


def _leval(*sets: str) -> Hub:
    return _hub("L4NLP/LEval", sets)


def _files(*names: str) -> tuple[tuple[Role, str], ...]:
    return tuple(("test", f"{name}.jsonl") for name in names)


LONGBENCH_SINGLE_DOC_QA = Task(
    name="longbench_single_doc_qa",
    title="LongBench, single-document QA",
    kind="long context",
    layout="longbench",
    files=_files("qasper", "multifieldqa_en", "narrativeqa"),
    columns=_LONGBENCH_COLUMNS,
    counts="200 of each set (multifieldqa_en: 150)",
    sizes=Sizes(3534, 505, 1010, source="Table 3"),
    template=SINGLE_DOC_QA,
    metric="f1",
    answer="whole",
    hub=_longbench("qasper", "multifieldqa_en", "narrativeqa"),
    categories=("qasper",),
    cut=True,
    license="Apache-2.0 (the paper's word; each set has its own)",
    citation="Bai et al. 2023, LongBench: A Bilingual, Multitask Benchmark, arXiv 2308.14508",
    notes=_LONGBENCH_NOTES,
)

LONGBENCH_MULTI_DOC_QA = replace(
    LONGBENCH_SINGLE_DOC_QA,
    name="longbench_multi_doc_qa",
    title="LongBench, multi-document QA",
    files=_files("hotpotqa", "2wikimqa", "musique"),
    counts="200 of each set",
    sizes=Sizes(3500, 500, 1000, source="Table 3"),
    template=MULTI_DOC_QA,
    hub=_longbench("hotpotqa", "2wikimqa", "musique"),
    categories=("hotpotqa", "2wikimqa", "musique"),
)

LONGBENCH_SUMMARIZATION = replace(
    LONGBENCH_SINGLE_DOC_QA,
    name="longbench_summarization",
    title="LongBench, summarization",
    files=_files("multi_news", "gov_report"),
    counts="200 of each set",
    sizes=Sizes(3500, 500, 1000, source="Table 3"),
    template=SUMMARIZATION,
    metric="rouge_l",
    hub=_longbench("multi_news", "gov_report"),
    categories=("multi_news",),
)

LONGBENCH_FEW_SHOT = replace(
    LONGBENCH_SINGLE_DOC_QA,
    name="longbench_few_shot",
    title="LongBench, few-shot learning",
    files=_files("triviaqa", "trec", "samsum"),
    counts="200 of each set",
    sizes=Sizes(3500, 500, 1000, source="Table 3"),
    template=FEW_SHOT,
    hub=_longbench("triviaqa", "trec", "samsum"),
    categories=("triviaqa",),
)

_LEVAL_COLUMNS = "L-Eval's SET.jsonl, a document a line: {input, instructions: [...], outputs: [...], evaluation}"

LEVAL_SINGLE_DOC_QA = Task(
    name="leval_single_doc_qa",
    title="L-Eval, questions on one document",
    kind="long context",
    layout="leval",
    files=_files("scientific_qa", "natural_question", "legal_contract_qa"),
    columns=_LEVAL_COLUMNS,
    counts="447 questions on 67 documents",
    sizes=Sizes(3534, 505, 1010, source="proportions of Table 3"),
    template=SINGLE_DOC_QA,
    metric="f1",
    answer="whole",
    hub=_leval("scientific_qa", "natural_question", "legal_contract_qa"),
    cut=True,
    stands_in_for="longbench_single_doc_qa",
    license="GPL-3.0",
    citation="An et al. 2023, L-Eval: Standardized Evaluation for Long Context Language Models, arXiv 2307.11088",
    notes=(
        "A stand-in, not LongBench. The prompt is the paper's, which calls every document a scientific article. A "
        "document has several questions: two splits may share one. data.categories chooses the sets."
    ),
)

LEVAL_MULTI_DOC_QA = replace(
    LEVAL_SINGLE_DOC_QA,
    name="leval_multi_doc_qa",
    title="L-Eval, questions on several documents",
    files=_files("multidoc_qa"),
    counts="158 questions on 23 sets of documents",
    sizes=Sizes(3500, 500, 1000, source="proportions of Table 3"),
    template=MULTI_DOC_QA,
    hub=_leval("multidoc_qa"),
    stands_in_for="longbench_multi_doc_qa",
    notes="A stand-in, not LongBench. A set of documents has several questions: two splits may share one.",
)

LEVAL_SUMMARIZATION = replace(
    LEVAL_SINGLE_DOC_QA,
    name="leval_summarization",
    title="L-Eval, summarization",
    files=_files("news_summ", "gov_report_summ", "patent_summ", "tv_show_summ"),
    counts="54 documents",
    sizes=Sizes(3500, 500, 1000, source="proportions of Table 3"),
    template=SUMMARIZATION,
    metric="rouge_l",
    hub=_leval("news_summ", "gov_report_summ", "patent_summ", "tv_show_summ"),
    stands_in_for="longbench_summarization",
    notes="A stand-in, not LongBench. The prompt is the paper's, which calls every document news.",
)

LEVAL_FEW_SHOT = replace(
    LEVAL_SINGLE_DOC_QA,
    name="leval_few_shot",
    title="L-Eval, few-shot learning",
    files=_files("gsm100"),
    counts="100 questions after 16 solved examples",
    sizes=Sizes(3500, 500, 1000, source="proportions of Table 3"),
    template="{context}\n{input}",
    metric="accuracy",
    answer="whole",
    answer_type="number",
    hub=_leval("gsm100"),
    stands_in_for="longbench_few_shot",
    notes=(
        "A stand-in, not LongBench: GSM8K test questions. The prompt is the set's own; its examples end in 'The answer "
        "is N', and the last number of a response is its answer."
    ),
)

LEVAL_EXAM = replace(
    LEVAL_SINGLE_DOC_QA,
    name="leval_exam",
    title="L-Eval, exams",
    files=_files("coursera", "quality", "tpo", "sci_fi", "topic_retrieval_longchat"),
    counts="857 questions on 102 documents",
    sizes=Sizes(3534, 505, 1010, source="proportions of Table 3"),
    template=EXAM,
    metric="accuracy",
    answer="final_answer",
    hub=_leval("coursera", "quality", "tpo", "sci_fi", "topic_retrieval_longchat"),
    notes=(
        "A stand-in, not LongBench; the prompt is ours. Multiple choice (coursera: possibly several letters), true or "
        "false by the document (sci_fi; what is true in the world is in metadata['fact']) and topic names. Two splits "
        "may share a document. data.categories chooses the sets."
    ),
)

BAMBOO = Task(
    name="bamboo",
    title="BAMBOO, five of its tasks",
    kind="long context",
    layout="bamboo",
    files=tuple(
        ("test", f"{name}_{length}.jsonl")
        for length in ("4k", "16k")
        for name in ("altqa", "paperqa", "meetingqa", "senhallu", "abshallu")
    ),
    columns="SET_4k.jsonl, SET_16k.jsonl {content, answer} with {question, options} or {hypothesis}; lax JSON",
    counts="200 altqa, 100 paperqa, 100 meetingqa, 200 senhallu, 200 abshallu of each length",
    sizes=Sizes(3534, 505, 1010, source="proportions of Table 3"),
    template=EXAM,
    metric="accuracy",
    cut=True,
    stands_in_for="longbench_single_doc_qa",
    license="MIT",
    citation="Dong et al. 2023, BAMBOO: A Comprehensive Benchmark for Evaluating Long Text Modeling, arXiv 2309.13345",
    notes="A stand-in, not LongBench; the prompt is ours. Numbers, letters and yes or no by category. Not on the hub.",
)
