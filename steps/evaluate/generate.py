"""Greedy answers in batches."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.evaluate.inference import Side, inference

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """What a model wrote, and whether it ended by itself or was cut."""

    text: str
    stopped: bool
    tokens: int


def generate_answers(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Dataset,
    max_new_tokens: int,
    batch_size: int,
    side: Side,
) -> list[Answer]:
    """Greedy answers to every row's prompt, in the order of ``examples``.

    Prompts are sorted by length and padded on the left; decoding stops a row at the end token.

    Args:
        model: the model of that side.
        tokenizer: the trained tokenizer.
        examples: column ``prompt_ids``.
        max_new_tokens: tokens after which an answer is cut.
        batch_size: prompts answered together.
        side: which model it is, for the progress line.
    """

    order = sorted(range(len(examples)), key=lambda index: len(examples[index]["prompt_ids"]))
    answers: dict[int, Answer] = {}
    with inference(model, "answers", len(order), side) as progress:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            prompts = [examples[index]["prompt_ids"] for index in indices]
            for index, answer in zip(indices, _generate(model, tokenizer, prompts, max_new_tokens), strict=True):
                answers[index] = answer
            progress.advance(start + len(indices))
    return [answers[index] for index in range(len(examples))]


def _generate(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: list[list[int]],
    max_new_tokens: int,
) -> list[Answer]:
    import torch

    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), int(tokenizer.pad_token_id), dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for index, prompt in enumerate(prompts):
        ids[index, longest - len(prompt) :] = torch.tensor(prompt)
        mask[index, longest - len(prompt) :] = 1
    output = model.generate(  # type: ignore[operator]  # PreTrainedModel's types leave the mixin out
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return [_answer(tokens, tokenizer) for tokens in output[:, longest:].tolist()]


def _answer(tokens: list[int], tokenizer: "PreTrainedTokenizerBase") -> Answer:
    stopped = tokenizer.eos_token_id in tokens
    kept = tokens[: tokens.index(tokenizer.eos_token_id)] if stopped else tokens
    # Some templates, Llama-2's for one, put a space before an answer: it belongs to the format, not to the code.
    text = str(tokenizer.decode(kept, skip_special_tokens=True)).strip()
    return Answer(text=text, stopped=stopped, tokens=len(kept))
