"""Parameters that say where data and base model come from."""

from typing import Self

from pydantic import Field, model_validator

from steps.parameters import Parameters


class Columns(Parameters):
    """Names that a source gives to our columns; null takes the first known name that the source has.

    Known names: instruction (also question, prompt, text), input (context), completion (output, response, answer,
    code), messages, tests (test_list), challenge_tests (challenge_test_list), test_setup (test_setup_code),
    preamble, group (task_id; else rows that ask the same are one group), license. Where instruction and completion are
    both there, ``messages`` is not read.
    """

    instruction: str | None = Field(default=None, description="what is asked for")
    input: str | None = Field(default=None, description="appended to the instruction after an empty line")
    completion: str | None = Field(default=None, description="the answer to be learned")
    messages: str | None = Field(
        default=None, description="a chat: one user message, then the assistant's answer; system messages are left out"
    )
    tests: str | None = Field(default=None, description="a text or a list of texts")
    challenge_tests: str | None = Field(default=None, description="harder tests, appended to the others")
    test_setup: str | None = Field(default=None, description="code put before each test")
    preamble: str | None = Field(
        default=None, description="code that runs before an answer, such as the imports of its module"
    )
    group: str | None = Field(default=None, description="rows of one group stay in one split; a text or a whole number")
    license: str | None = Field(default=None, description="SPDX id of the row's licence")

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if self.messages is not None and (self.instruction, self.input, self.completion) != (None, None, None):
            raise ValueError("messages holds instruction and completion; name either messages or those columns")
        return self


class Source(Parameters):
    """Sources of instruction -> code rows, each exactly one of ``files``, ``hub`` and ``package``."""

    files: str | None = Field(
        default=None, description="path or glob of .jsonl, .json, .csv, .tsv (each also .gz) or .parquet files"
    )
    hub: str | None = Field(default=None, description="Hugging Face data set id, such as owner/name")
    package: str | None = Field(default=None, description="import name whose documented functions become rows")
    revision: str = Field(default="main", description="hub only: branch, tag or commit; the commit is recorded")
    subset: str | None = Field(default=None, description="hub only: configuration name")
    split: str = Field(default="train", description="hub only: split name")
    streaming: bool = Field(default=False, description="hub only: read rows one by one, download no whole data set")
    columns: Columns = Columns()
    license: str = Field(default="", description="SPDX id of the whole source where rows state none")
    weight: float | None = Field(
        default=None, gt=0, description="relative share in the mix, given to every source or to none"
    )

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

    @model_validator(mode="after")
    def _all_weighted_or_none(self) -> Self:
        without = [index for index, source in enumerate(self.sources) if source.weight is None]
        if 0 < len(without) < len(self.sources):
            raise ValueError(f"sources[{without[0]}] has no weight and others have one; give all a weight or none")
        return self


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
    accept_pickle: bool = Field(
        default=False,
        description="hub and folder: where there are no safetensors, read pytorch_model*.bin (tensors only: "
        "torch.load's weights_only) and convert them once",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(value is not None for value in (self.hub, self.folder, self.package)) != 1:
            raise ValueError("base_model needs exactly one of hub, folder and package")
        if (self.package is None) != (self.gguf is None):
            raise ValueError("base_model: package and gguf are given together")
        if self.package is not None and self.accept_pickle:
            raise ValueError("base_model: accept_pickle has no meaning with a package, whose GGUF file is no pickle")
        pinned = len(self.revision) == 40 and set(self.revision) <= set("0123456789abcdef")
        if self.trust_remote_code and not (self.hub and pinned):
            raise ValueError("base_model: trust_remote_code needs a hub model whose revision is a 40-digit commit")
        return self
