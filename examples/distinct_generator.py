"""A generator: sample twice as many responses as asked for and keep distinct ones, which make more pairs."""

from collections.abc import Sequence

from laser.extend import Policy, Prompt, Response, TransformersGenerator


class DistinctGenerator:
    def __init__(self, inner: TransformersGenerator) -> None:
        self._inner = inner

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        num_responses: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> list[list[Response]]:
        replies = self._inner.generate(
            prompts,
            num_responses=num_responses if temperature == 0 else 2 * num_responses,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            seeds=seeds,  # everything random comes from these, one a prompt
        )
        return [_distinct_first(row)[:num_responses] for row in replies]


def _distinct_first(responses: list[Response]) -> list[Response]:
    texts = [response.text for response in responses]
    is_repeat = [text in texts[:index] for index, text in enumerate(texts)]
    return [response for _, response in sorted(zip(is_repeat, responses, strict=True), key=lambda item: item[0])]


def make(policy: Policy) -> DistinctGenerator:
    return DistinctGenerator(TransformersGenerator(policy))
