"""Parameters of the evaluation."""

from pydantic import Field

from steps.parameters import Parameters


class EvaluationParameters(Parameters):
    """How much is measured; the base and the tuned model get the same rows and the same decoding (greedy)."""

    max_loss_rows: int = Field(default=500, gt=0, description="test rows whose completion loss is measured")
    max_prompts: int = Field(default=100, gt=0, description="test rows that are answered")
    max_new_tokens: int = Field(default=256, gt=0, description="tokens after which an answer is cut")
    batch_size: int = Field(default=16, gt=0, description="rows processed together; changes no result beyond rounding")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of every interval")
