"""Parameters that say where data and base model come from."""

from typing import Self

from pydantic import Field, model_validator

from steps.parameters import Parameters


class Columns(Parameters):
    """Names that a source gives to our columns; None takes the first known name that the source has.

    Known names: instruction (also question, prompt, text), input (context), completion (output, response, answer,
    code), tests (test_list), group (else rows that ask the same are one group), license.
    """

    instruction: str | None = None
    input: str | None = Field(default=None, description="appended to the instruction after an empty line")
    completion: str | None = None
    tests: str | None = Field(default=None, description="a text or a list of texts")
    group: str | None = Field(default=None, description="rows of one group stay in one split")
    license: str | None = None


class Source(Parameters):
    """One source of instruction -> code rows: exactly one of ``files``, ``hub`` and ``package``."""

    files: str | None = Field(default=None, description="path or glob of .jsonl, .json, .csv or .parquet files")
    hub: str | None = Field(default=None, description="Hugging Face data set id, such as owner/name")
    package: str | None = Field(default=None, description="import name whose documented functions become rows")
    revision: str = Field(default="main", description="hub only: branch, tag or commit; the commit is recorded")
    subset: str | None = Field(default=None, description="hub only: configuration name")
    split: str = Field(default="train", description="hub only: split name")
    columns: Columns = Columns()
    license: str = Field(default="", description="SPDX id of the whole source where rows state none")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(value is not None for value in (self.files, self.hub, self.package)) != 1:
            raise ValueError("a source needs exactly one of files, hub and package")
        return self

    @property
    def name(self) -> str:
        """How reports call this source."""
        return self.files or self.hub or self.package or ""


class DataParameters(Parameters):
    """Where the rows come from, and how many may be unreadable."""

    sources: tuple[Source, ...] = Field(min_length=1)
    max_bad_share: float = Field(
        default=0.0, ge=0, le=1, description="largest share of unreadable rows with which the run goes on"
    )


class BaseModelParameters(Parameters):
    """The base model: exactly one of a hub id, a local folder, and a GGUF file inside an installed package."""

    hub: str | None = Field(default=None, description="Hugging Face model id, such as owner/name")
    revision: str = Field(default="main", description="hub only: branch, tag or commit; the commit is recorded")
    folder: str | None = Field(default=None, description="local folder in the Hugging Face layout")
    package: str | None = Field(default=None, description="installed package that ships a GGUF file")
    gguf: str | None = Field(default=None, description="name of the GGUF file inside the package")
    trust_remote_code: bool = Field(
        default=False, description="run the repository's own Python code; needs a commit as revision"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(value is not None for value in (self.hub, self.folder, self.package)) != 1:
            raise ValueError("base_model needs exactly one of hub, folder and package")
        if (self.package is None) != (self.gguf is None):
            raise ValueError("base_model: package and gguf are given together")
        pinned = len(self.revision) == 40 and set(self.revision) <= set("0123456789abcdef")
        if self.trust_remote_code and not (self.hub and pinned):
            raise ValueError("base_model: trust_remote_code needs a hub model whose revision is a 40-digit commit")
        return self
