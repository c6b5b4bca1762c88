"""The prompts of arXiv 2410.01735, appendix E, word for word.

The appendix has no line breaks. Those of the reasoning prompt follow the authors' code, those of the long-context
prompts follow LongBench, whose wording it is. `EXAM` is ours, for stand-ins that the paper does not use.
"""

REASONING = (
    "Your task is to answer the question below. Give step by step reasoning before you answer, and when you’re ready "
    "to answer, please use the format “Final answer:…”\n"
    "Question: {input}\n"
    "Solution:"
)

INSTRUCTION = (
    "You are an assistant capable of assisting users in various tasks, including creative writing, analysis of texts "
    "and data, coding, providing factual information, and solving math problems. For creative writing, help users "
    "brainstorm ideas and develop their narratives. For analysis, guide users in breaking down concepts and exploring "
    "different perspectives. In coding, assist with programming questions and debugging. When providing factual "
    "information, ensure accuracy and cite reliable sources. For math reasoning, offer step-by-step solutions and "
    "encourage logical thinking. Maintain a clear, engaging, and supportive tone throughout your responses to foster "
    "learning and creativity.\n"
    "Question: {input}\n"
    "Answer:"
)

_CONCISELY = (
    "as concisely as you can, using a single phrase or sentence if possible. If the question cannot be answered based "
    "on the information in the article, write “unanswerable”. If the question is a yes/no question, answer “yes”, "
    "“no”, or “unanswerable”. Do not provide any explanation."
)

SINGLE_DOC_QA = (
    f"You are given a scientific article and a question. Answer the question {_CONCISELY}\n\n"
    "Article: {context}\n\n"
    f"Answer the question based on the above article {_CONCISELY}\n\n"
    "Question: {input}\n\n"
    "Answer:"
)

_ONLY = "Only give me the answer and do not output any other words."

MULTI_DOC_QA = (
    f"Answer the question based on the given passages. {_ONLY}\n\n"
    "The following are given passages.\n"
    "{context}\n\n"
    f"Answer the question based on the given passages. {_ONLY}\n\n"
    "Question: {input}\n"
    "Answer:"
)

SUMMARIZATION = (
    "You are given several news passages. Write a one-page summary of all news.\n\n"
    "News:\n"
    "{context}\n\n"
    "Now, write a one-page summary of all the news.\n\n"
    "Summary:"
)

FEW_SHOT = (
    f"Answer the question based on the given passage. {_ONLY} The following are some examples.\n\n"
    "{context}\n\n"
    "Question: {input}\n"
    "Answer:"
)

EXAM = (
    "Read the document and answer the question about it. When you’re ready to answer, please use the format "
    "“Final answer:…”\n\n"
    "Document:\n"
    "{context}\n\n"
    "Question: {input}\n"
    "Answer:"
)

PLAIN = "{input}"
