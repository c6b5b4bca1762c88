"""Many responses to one prompt in one row, the prompt computed once.

A row is ``[prompt | r1 | r2 | ... | rn]``. Every response starts at position len(prompt) and attends to the prompt and,
causally, to itself; a 4D attention mask keeps responses apart. The last token of a response predicts nothing that is
asked for, so it is not in the row. Where a model does not honor a 4D mask, or a text is longer than the window of some
of its layers, which such a mask would override, each response gets its row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TokenIds = Sequence[int]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows ready for a forward pass: R rows of L tokens that predict T response tokens.

    Attributes:
        input_ids: Shape (R, L), right-padded.
        position_ids: Shape (R, L).
        attention_mask: Boolean, shape (R, 1, L, L), True where a query may attend; or (R, L) without shared prompts.
        predicting: For each of the T tokens, the flat index r * L + l of the position that predicts it.
        targets: The token ids that are predicted, shape (T,).
        owners: For each of the T tokens, the flat number of its response, shape (T,).
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    predicting: Tensor
    targets: Tensor
    owners: Tensor

    @property
    def num_tokens(self) -> int:
        """R * L, padding included."""
        return self.input_ids.numel()


@dataclass(frozen=True, slots=True)
class _Row:
    prompt: TokenIds
    responses: tuple[tuple[int, TokenIds], ...]  # (flat number, token ids)
    shared: bool  # whether in a batch with 4D masks

    def __len__(self) -> int:
        return len(self.prompt) + sum(len(ids) - 1 for _, ids in self.responses)


def pack(
    prompt_ids: Sequence[TokenIds],
    response_ids: Sequence[Sequence[TokenIds]],
    *,
    max_batch_tokens: int,
    share_up_to: float = math.inf,
    pad_id: int = 0,
    device: torch.device | None = None,
) -> Iterator[PackedBatch]:
    """Lay out responses in batches of at most `max_batch_tokens` padded tokens.

    Responses are numbered flat, in the order given. Empty ones predict nothing and are in no row.

    Args:
        prompt_ids: B prompts, each at least one token.
        response_ids: For each prompt, its responses.
        max_batch_tokens: Budget of a batch and of a row; a row with a single response may exceed it.
        share_up_to: Most tokens of prompt and response together for which a prompt's responses are put behind one copy
            of it; 0: never.
        pad_id: Any valid token id.
        device: Where batches are made; default: the CPU.

    Yields:
        Batches of rows of similar length, longest first, those whose prompt is not shared before the others.
    """
    rows = list(_rows(prompt_ids, response_ids, max_batch_tokens, share_up_to))
    for kind in ([row for row in rows if not row.shared], [row for row in rows if row.shared]):
        for chunk in by_length([len(row) for row in kind], max_batch_tokens):
            yield _batch([kind[index] for index in chunk], pad_id, device or torch.device("cpu"))


def by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group rows of similar length: indices, longest first, so that rows x longest stays within the budget.

    A row longer than the budget is a group by itself.
    """
    chunk: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if chunk and (len(chunk) + 1) * lengths[chunk[0]] > budget:
            yield chunk
            chunk = []
        chunk.append(index)
    if chunk:
        yield chunk


def pad_right(ids: Sequence[TokenIds], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pad rows on the right; returns token ids and the mask of real tokens, both of shape (R, longest)."""
    length = max(map(len, ids))
    input_ids = torch.tensor([[*row, *[pad_id] * (length - len(row))] for row in ids], dtype=torch.long)
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids], dtype=torch.long)
    return input_ids.to(device), mask.to(device)


def _rows(
    prompt_ids: Sequence[TokenIds], response_ids: Sequence[Sequence[TokenIds]], budget: int, share_up_to: float
) -> Iterator[_Row]:
    number = 0
    for prompt, responses in zip(prompt_ids, response_ids, strict=True):
        shared = len(prompt) + max(map(len, responses), default=0) - 1 <= share_up_to
        current: list[tuple[int, TokenIds]] = []
        used = len(prompt)
        for ids in responses:
            if ids:
                if current and (not shared or used + len(ids) - 1 > budget):
                    yield _Row(prompt, tuple(current), shared)
                    current, used = [], len(prompt)
                current.append((number, ids))
                used += len(ids) - 1
            number += 1
        if current:
            yield _Row(prompt, tuple(current), shared)


def _batch(rows: Sequence[_Row], pad_id: int, device: torch.device) -> PackedBatch:
    """Rows that are all shared or all not."""
    length = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    position_ids = torch.zeros((len(rows), length), dtype=torch.long)
    segments = torch.full((len(rows), length), -1, dtype=torch.long)  # 0 prompt, 1.. responses, -1 padding
    predicting: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for index, row in enumerate(rows):
        prompt_length = end = len(row.prompt)
        input_ids[index, :end] = torch.tensor(row.prompt)
        position_ids[index, :end] = torch.arange(end)
        segments[index, :end] = 0
        for segment, (number, ids) in enumerate(row.responses, start=1):
            begin, end = end, end + len(ids) - 1
            input_ids[index, begin:end] = torch.tensor(ids[:-1], dtype=torch.long)
            position_ids[index, begin:end] = prompt_length + torch.arange(end - begin)
            segments[index, begin:end] = segment
            predicting += [index * length + position for position in (prompt_length - 1, *range(begin, end))]
            targets += ids
            owners += [number] * len(ids)
    segments = segments.to(device)  # the mask, by far the largest, is made where it is needed
    return PackedBatch(
        input_ids=input_ids.to(device),
        position_ids=position_ids.to(device),
        attention_mask=_tree_mask(segments) if rows[0].shared else (segments >= 0).long(),
        predicting=torch.tensor(predicting, dtype=torch.long).to(device),
        targets=torch.tensor(targets, dtype=torch.long).to(device),
        owners=torch.tensor(owners, dtype=torch.long).to(device),
    )


def _tree_mask(segments: Tensor) -> Tensor:
    """True where query and key are in causal order and the key is in the prompt or in the query's own segment."""
    length = segments.shape[1]
    causal = torch.ones((length, length), dtype=torch.bool, device=segments.device).tril()
    query, key = segments[:, :, None], segments[:, None, :]
    # Padding attends to itself: a row without any True would make softmax undefined.
    return (causal & ((key == 0) | (key == query)))[:, None]
