"""What ``resolve`` pins down; the content of these records decides which later steps run again."""

from typing import Literal

from pydantic import Field

from steps.report import Report


class LockedSource(Report):
    """One data source at one exact state."""

    name: str
    files: dict[str, str] = Field(default_factory=dict, description="path -> SHA-256")
    commit: str = Field(default="", description="hub: commit of the data set repository")
    version: str = Field(default="", description="package: installed version")


class DataLock(Report):
    """The data at one exact state, in the order of the configuration."""

    sources: list[LockedSource]


class BenchmarkLock(DataLock):
    """What the evaluation reads beside the run's own rows; ``sources`` are the sets."""

    reference_text: LockedSource | None = None
    tasks: list[LockedSource] = Field(default_factory=list, description="tasks of lm-eval, by their names")


class StoredQuantization(Report):
    """How a model that comes quantised by bitsandbytes is stored, in the words of ``parameters.quantization``."""

    kind: Literal["nf4", "fp4", "int8"]
    double_quantization: bool
    compute_dtype: str = Field(description="type of the arithmetic that its config.json names, '' with int8")


class ModelLock(Report):
    """The base model at one exact state; ``files`` are its weights, configuration and tokenizer."""

    name: str
    hub: str = Field(default="", description="hub id, where it comes from the hub")
    folder: str = Field(default="", description="local folder, where it is one")
    package: str = Field(default="", description="package that ships the GGUF file, where it is one")
    commit: str = Field(default="", description="hub: commit of the model repository; package: version")
    files: dict[str, str] = Field(description="path -> SHA-256, or the hub's blob id")
    trust_remote_code: bool = False
    quantization: StoredQuantization | None = Field(default=None, description="None where it is at full precision")

    @property
    def pickled(self) -> bool:
        """Whether the weights are pickles, which the configuration accepted."""
        return not self.package and not any(name.endswith(".safetensors") for name in self.files)


class TokenizerLock(Report):
    """The tokenizer at one exact state, apart from the weights: a new base revision need not retokenise."""

    model: ModelLock = Field(description="where to load it from")
    files: dict[str, str] = Field(description="path -> SHA-256, or the hub's blob id")

    def decisive_json(self) -> str:
        """The tokenizer's files alone: weights that changed beside them do not count."""
        return self.model_dump_json(include={"files"})


class StoredArtifact(Report):
    """An artifact of the ZenML store; both are '' where the version no longer has it."""

    id: str = ""
    content_hash: str = ""


class ProductionLock(Report):
    """The version that is in production when a run starts; ``version`` is 0 and all else empty where none is.

    No step runs again because of it: one that runs anyway measures against it.
    """

    model: str = ""
    version: int = 0
    id: str = ""
    adapter: StoredArtifact = Field(default_factory=StoredArtifact)
    quantized_model: StoredArtifact = Field(default_factory=StoredArtifact)
    tokenizer: StoredArtifact = Field(default_factory=StoredArtifact)


class Environment(Report):
    """Code, library versions and hardware of the run: recorded, never a reason to run a step again."""

    code_commit: str = Field(description="git commit, '' outside a repository")
    code_dirty: bool = Field(description="whether tracked files differed from that commit")
    python: str
    libraries: dict[str, str]
    platform: str
    processor: str
    cores: int
    memory_gb: float
    accelerators: list[str]
