"""Reward functions: prompts and responses in, one number per response out; None for no opinion."""


def correct(prompts, responses, answer):
    """Whether the gold answer is the last word."""
    return [
        None if gold is None else float(text.split()[-1:] == [gold])
        for text, gold in zip(responses, answer, strict=True)
    ]


def brief(prompts, responses):
    """Short responses."""
    return [-float(len(text)) for text in responses]
