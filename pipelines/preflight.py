"""The numbered checks that tell, before a run, what would stop it."""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from pipelines.config import CheckedConfig, NotTriedError
from pipelines.origins import parameter_counts
from steps.errors import DeviceError, ModelError, PipelineError
from steps.evaluate.params import EvaluationParameters
from steps.files import require_space
from steps.format.params import PromptParameters
from steps.quantize.params import QuantizationParameters
from steps.resolve.locks import ModelLock
from steps.resolve.params import BaseModelParameters, DataParameters
from steps.split.params import SplitParameters
from steps.train.params import TrainingParameters

PROJECT = "qlora-pipeline"

TRAINING_SHARE = 0.2
"""Bytes of adapter, optimiser state and checkpoints over those of the 16-bit weights: 0.15 for rank 64 on a 7B model's
projections."""


@dataclass(frozen=True)
class Subject:
    """What the checks look at."""

    config: CheckedConfig

    @cached_property
    def model_lock(self) -> ModelLock:
        """The base model at its exact state; three checks need it, and hashing large weights takes a while."""
        from steps.resolve.base_model import lock_model

        return lock_model(self.config.valid("base_model", BaseModelParameters))

    @property
    def readable_model(self) -> ModelLock:
        """The same, for the checks after the one that says why it cannot be read."""
        try:
            return self.model_lock
        except ModelError:
            raise NotTriedError("not tried, since the base model cannot be read") from None


@dataclass(frozen=True)
class Outcome:
    """What one check found."""

    name: str
    passed: bool
    message: str
    tried: bool = True


def preflight(config: CheckedConfig) -> Iterator[Outcome]:
    """Try every check, in order; one that fails does not keep the next from being tried."""
    subject = Subject(config)
    for name, check in CHECKS.items():
        try:
            yield Outcome(name, True, check(subject))
        except PipelineError as error:
            yield Outcome(name, False, str(error), tried=not isinstance(error, NotTriedError))


def _config(subject: Subject) -> str:
    config = subject.config
    config.require()
    given, total = parameter_counts(config)
    return f"{config.document.file}: {given} of {total} parameters given, the others are defaults"


def _packages(subject: Subject) -> str:
    requirements = _requirements()
    problems = [problem for requirement in requirements if (problem := unmet(requirement))]
    for name in _named_packages(subject.config):
        if importlib.util.find_spec(name) is None:
            problems.append(f"{name} is not installed, but {subject.config.document.file} names it")
    if problems:
        raise DeviceError(f"{'; '.join(problems)}; install what is missing with pip")
    return f"{len(requirements)} requirements met"


def _requirements() -> list[Requirement]:
    try:
        lines = requires(PROJECT) or []
    except PackageNotFoundError:
        raise DeviceError(f"{PROJECT} itself is not installed; run pip install -e .") from None
    requirements = [Requirement(line) for line in lines]
    return [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]


def unmet(requirement: Requirement) -> str:
    """What is wrong with the installed version, "" where nothing is."""
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement} is not installed"
    if requirement.specifier.contains(installed, prereleases=True):
        return ""
    return f"{requirement} is needed and {installed} is installed"


def _named_packages(config: CheckedConfig) -> list[str]:
    data, base_model = config.parameters.get("data"), config.parameters.get("base_model")
    names = [source.package for source in data.sources] if isinstance(data, DataParameters) else []
    names += [base_model.package] if isinstance(base_model, BaseModelParameters) else []
    return [name for name in names if name]


def _device(subject: Subject) -> str:
    from steps.device import describe_device, why_no_gpu

    training = subject.config.parameters.get("training")
    if isinstance(training, TrainingParameters):
        device = describe_device(training.precision, training.attention)
    else:
        device = describe_device()
    return device.reason if device.kind == "cuda" else f"{device.reason}; {why_no_gpu()}"


def _data(subject: Subject) -> str:
    from steps.evaluate.sets import set_sources, task_folders
    from steps.ingest.ingest import require_first_rows
    from steps.resolve.benchmarks import lock_benchmarks
    from steps.resolve.data import lock_data
    from steps.resolve.evaluation_sets import lock_evaluation_sets

    data = subject.config.valid("data", DataParameters)
    lock = lock_data(data)
    require_first_rows(data, lock)
    splits = subject.config.valid("splits", SplitParameters)
    evaluation = subject.config.valid("evaluation", EvaluationParameters)
    benchmarks = lock_benchmarks(set_sources(evaluation), evaluation.reference_text, task_folders(evaluation))
    sources = [*lock.sources, *lock_evaluation_sets(splits.contamination.against).sources]
    sources += [*benchmarks.sources, *benchmarks.tasks]
    sources += [benchmarks.reference_text] if benchmarks.reference_text else []
    return ", ".join(f"{source.name} {source.version or source.commit[:12]}".rstrip() for source in sources)


def _base_model(subject: Subject) -> str:
    from steps.quantize.fit import require_agreement
    from steps.resolve.base_model import model_size
    from steps.resolve.stored import require_whole

    lock = subject.model_lock
    if lock.folder:
        require_whole(Path(lock.folder))
    require_agreement(lock, subject.config.valid("quantization", QuantizationParameters))
    return f"{lock.name} {lock.commit[:12]}".rstrip() + f", {model_size(lock) / 1e9:.2f} GB"


def _prompt(subject: Subject) -> str:
    from steps.chat_template import bind_template
    from steps.format.format import require_round_trip
    from steps.format.tokenize import Encoder
    from steps.resolve.base_model import local_tokenizer

    prompt, lock = subject.config.valid("prompt", PromptParameters), subject.readable_model
    template = bind_template(prompt.template, prompt.system, local_tokenizer(lock))
    require_round_trip(Encoder(template), lock.name)
    eos, pad = template.tokenizer.eos_token, template.tokenizer.pad_token
    return f"template {template.name}; an answer ends with {eos}, padding is {pad}"


def _disk(subject: Subject) -> str:
    from zenml.client import Client

    from materializers.local import local_path
    from steps.quantize.fit import STORED_SHARE
    from steps.resolve.base_model import model_size
    from steps.resolve.convert import EXPANSION

    store = Client().active_stack.artifact_store
    folder = local_path(store.path, store)
    if folder is None:
        return f"{store.path} is remote and was not measured"
    lock = subject.readable_model
    expanded = bool(lock.package or lock.quantization)
    full = model_size(lock) * (EXPANSION["nf4"] if expanded else 1)  # larger formats expand less
    copies = 2 if expanded or lock.pickled else 1  # the merged model, and safetensors at full precision if need be
    kind = subject.config.valid("quantization", QuantizationParameters).kind
    needed = int(full * (copies + STORED_SHARE[kind] + TRAINING_SHARE))
    require_space(folder, needed, "a run with this base model")
    return f"{folder}: the {needed / 1e9:.2f} GB that a run writes are free"


def _sandbox(subject: Subject) -> str:
    from steps.evaluate.execute import limits_here

    limits = limits_here(subject.config.valid("evaluation", EvaluationParameters).sandbox)
    if limits is None:
        return "generated code will not run"
    if not limits.isolated:
        return "generated code runs as this user, NOT isolated, as parameters.evaluation.sandbox.accept_risk says"
    return "generated code runs isolated, in namespaces of its own"


CHECKS: dict[str, Callable[[Subject], str]] = {
    "config": _config,
    "packages": _packages,
    "device": _device,
    "data": _data,
    "base model": _base_model,
    "prompt": _prompt,
    "disk space": _disk,
    "sandbox": _sandbox,
}
"""In the order in which a run would fail."""
