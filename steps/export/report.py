"""What was exported, and how far each copy is from the merged model."""

from pydantic import BaseModel

from steps.report import Report


class Copy(BaseModel):
    """One copy of the merged model, read back and compared with it on the completions of test rows."""

    model_config = {"protected_namespaces": ()}

    name: str  # such as "bitsandbytes nf4"
    files: list[str]  # within the exported directory
    bytes: int
    rows: int
    positions: int  # completion tokens
    max_logit_difference: float
    mean_logit_difference: float
    top1_agreement: float  # share of the completion tokens
    merged_loss: float  # nats per completion token
    exported_loss: float
    max_loss_difference_bound: float
    tokenizer: str = ""  # what was found of the copy's own tokenizer, where it has one


class Push(BaseModel):
    """What was, or would be, pushed to the hub."""

    repository: str
    what: str
    private: bool
    files: dict[str, int]  # path in the repository -> bytes
    pushed: bool
    reason: str  # why not, or the commit that was made


class ExportReport(Report):
    """Every export that was asked for."""

    base_model: str
    merged_bytes: int
    copies: list[Copy]
    push: Push | None
    seconds: float

    def metadata(self) -> dict[str, str | int | float | bool]:
        """Size and loss of each copy, and whether something was pushed."""
        values: dict[str, str | int | float | bool] = {}
        for copy in self.copies:
            name = copy.name.replace(" ", "_")
            values[f"{name}_bytes"] = copy.bytes
            values[f"{name}_loss_difference"] = round(copy.exported_loss - copy.merged_loss, 6)
        if self.push is not None:
            values["pushed"] = self.push.pushed
        return values

    def decisive_json(self) -> str:
        """Everything but the time that it took."""
        return self.model_dump_json(exclude={"seconds"})
