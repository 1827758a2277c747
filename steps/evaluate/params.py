"""Parameters of the evaluation."""

from typing import Self

from pydantic import Field, model_validator

from steps.parameters import Parameters


class SandboxParameters(Parameters):
    """How generated code is run. 3 to 10 s and some hundred MiB are what HumanEval's and MBPP's harnesses give."""

    execute: bool = Field(default=True, description="run the answers, and the tests of the rows that carry tests")
    accept_risk: bool = Field(
        default=False,
        description="where the kernel forbids namespaces, run generated code as this user, with limits alone",
    )
    seconds: float = Field(default=5.0, ge=1, description="of wall time, and of CPU, for a program with its tests")
    memory_mib: int = Field(default=512, ge=64, description="address space of a program, MiB; a bare Python needs 50")

    @model_validator(mode="after")
    def _risk_of_something(self) -> Self:
        if self.accept_risk and not self.execute:
            raise ValueError("accept_risk is about running code, and execute: false runs none; leave one of them out")
        return self


class EvaluationParameters(Parameters):
    """How much is measured; the base and the tuned model get the same rows and the same decoding (greedy)."""

    max_loss_rows: int = Field(default=500, gt=0, description="test rows whose completion loss is measured")
    max_prompts: int = Field(default=100, gt=0, description="test rows that are answered")
    max_new_tokens: int = Field(default=256, gt=0, description="tokens after which an answer is cut")
    batch_size: int = Field(default=16, gt=0, description="rows processed together; changes no result beyond rounding")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of every interval")
    sandbox: SandboxParameters = Field(default=SandboxParameters(), description="how generated code is run")
