"""Answers to every prompt: those of an interrupted evaluation are taken up, samples are shown meanwhile."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datasets import Dataset

from steps.evaluate.answer import Answer, answer_of
from steps.evaluate.answer_file import AnswerFile
from steps.evaluate.decode import Decoding, decode
from steps.evaluate.inference import Side, inference
from steps.evaluate.sampling import Draw, sampling_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


SAMPLE_SECONDS = 20.0
"""Between two answers that are shown while the others are being written; the first one is always shown."""

SHOWN_WORDS = 8
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class _Question:
    """What is asked for one answer."""

    prompt_ids: list[int]
    prefix: str
    instruction: str
    draw: Draw | None


def generate_answers(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Dataset,
    max_new_tokens: int,
    batch_size: int,
    side: Side,
    kept: AnswerFile | None = None,
    draws: Sequence[Draw] = (),
) -> list[Answer]:
    """A greedy answer to every row's prompt, or several sampled ones next to each other, in the order of ``examples``.

    Args:
        model: the model of that side.
        tokenizer: the trained tokenizer.
        examples: columns ``prompt_ids`` and ``instruction``; where there is a ``prefix``, whose tokens end
            ``prompt_ids``, an answer begins with it.
        max_new_tokens: tokens after which an answer is cut.
        batch_size: prompts answered together.
        side: which model it is, for the progress line.
        kept: answers that are there already, and where new ones are written as they come.
        draws: how each prompt's sampled answers are drawn; without any, the one answer is greedy.
    """
    questions = _questions(examples, draws)
    found = {
        index: answer for index, one in enumerate(questions) if kept and (answer := kept.get(one.prompt_ids, one.draw))
    }
    missing = [index for index in range(len(questions)) if index not in found]
    if found:
        print(f"  answers, {side}: {len(found)} of {len(questions)} are there from before", flush=True)
    decoding = Decoding(int(tokenizer.eos_token_id), int(tokenizer.pad_token_id), max_new_tokens, batch_size)
    prompts = [questions[index].prompt_ids for index in missing]
    drawn = [draw for index in missing if (draw := questions[index].draw)]
    total, written, shown = max_new_tokens * len(missing), 0, float("-inf")
    with inference(model, "tokens", total, side) as progress:

        def advance(tokens: int) -> None:
            nonlocal written
            written += tokens
            if written < total or len(found) == len(questions):
                progress.advance(written, f"{len(found)} of {len(questions)} answered")

        for position, tokens in decode(model, prompts, decoding, advance, sampling_of(prompts, drawn)):
            index = missing[position]
            question, answer = questions[index], answer_of(tokens, tokenizer, questions[index].prefix)
            found[index] = answer
            if kept:
                kept.add(question.prompt_ids, answer, question.draw)
            advance(max_new_tokens - len(tokens))  # what it did not need counts as done
            if time.monotonic() - shown > SAMPLE_SECONDS:
                shown = time.monotonic()
                progress.say(_sample(question.instruction, answer))
    return [found[index] for index in range(len(questions))]


def _questions(examples: Dataset, draws: Sequence[Draw]) -> list[_Question]:
    """Each row's, once for every draw."""
    prefixes: Sequence[str] = examples["prefix"][:] if "prefix" in examples.column_names else [""] * len(examples)
    rows = zip(examples["prompt_ids"], prefixes, examples["instruction"], strict=True)
    each: Sequence[Draw | None] = draws or [None]
    return [_Question(*row, draw) for row in rows for draw in each]


def _sample(instruction: str, answer: Answer) -> str:
    asked = instruction.split()
    question = " ".join(asked[:SHOWN_WORDS]) + (" ..." if len(asked) > SHOWN_WORDS else "")
    first = answer.text.partition("\n")[0]
    return f"    {question[:SHOWN_CHARACTERS]} -> {first[:SHOWN_CHARACTERS] or '(nothing)'}"
