"""Every kind of mistake in a configuration file is found, on its line, with the nearest valid name."""

from collections.abc import Callable
from pathlib import Path

import pytest
from zenml.config.base_settings import BaseSettings

from pipelines.config import CheckedConfig, Parameter, check_config
from pipelines.document import dotted
from steps.errors import ConfigError
from steps.evaluate.params import EvaluationParameters
from steps.export.params import ExportParameters
from steps.format.params import PromptParameters
from steps.merge.params import MergeParameters
from steps.promote.params import PromotionParameters
from steps.quantize.params import QuantizationParameters
from steps.resolve.params import BaseModelParameters, DataParameters
from steps.split.params import SplitParameters
from steps.train.params import TrainingParameters
from steps.validate.params import ValidationParameters

PARAMETERS = {
    "data": Parameter(DataParameters, required=True),
    "base_model": Parameter(BaseModelParameters, required=True),
    "validation": Parameter(ValidationParameters, required=False),
    "splits": Parameter(SplitParameters, required=False),
    "prompt": Parameter(PromptParameters, required=False),
    "quantization": Parameter(QuantizationParameters, required=False),
    "training": Parameter(TrainingParameters, required=False),
    "evaluation": Parameter(EvaluationParameters, required=False),
    "merging": Parameter(MergeParameters, required=False),
    "promotion": Parameter(PromotionParameters, required=False),
    "exports": Parameter(ExportParameters, required=False),
}
STEPS = [
    "resolve",
    "ingest",
    "validate",
    "split",
    "format",
    "quantize",
    "train",
    "evaluate",
    "merge",
    "promote",
    "export",
]

TOP = """\
model:
  name: coder
parameters:
  data:
    sources:
      - files: rows.jsonl
  base_model:
    hub: owner/name
"""
"""A valid configuration of eight lines; what a test adds stands on line 9 and below."""

Write = Callable[[str], Path]


class LocalSettings(BaseSettings):
    """Settings of a stack component, as a stack would report them."""

    synchronous: bool = True


def check(path: Path) -> CheckedConfig:
    """Check and raise."""
    config = check_config(path, PARAMETERS, STEPS, {"orchestrator": LocalSettings})
    config.require()
    return config


def complaint(path: Path) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(ConfigError) as caught:
        check(path)
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()


def test_a_valid_file_gives_its_values_and_the_defaults(config_file: Write) -> None:
    text = TOP + "  training:\n    learning_rate: 2e-4\n    lora: {r: 8}\n    early_stopping: null\n"
    config = check(config_file(text))
    training = config.parameters["training"]
    assert isinstance(training, TrainingParameters)
    assert training.learning_rate == 2e-4
    assert training.lora.r == 8
    assert training.lora.alpha == TrainingParameters().lora.alpha
    assert training.early_stopping is None
    assert config.parameters["merging"] == MergeParameters()


UNKNOWN = [
    ("enable_cash: true", 9, "enable_cash", "enable_cache"),
    ("setings: {}", 9, "setings", "settings"),
    ("stages: {}", 9, "stages", ""),
    ("steps:\n  trian:\n    enable_cache: true", 10, "steps.trian", "train"),
    ("steps:\n  train:\n    enable_cahce: true", 11, "steps.train.enable_cahce", "enable_cache"),
    ("steps:\n  train:\n    retry:\n      max_retry: 3", 12, "steps.train.retry.max_retry", "max_retries"),
    (
        "steps:\n  train:\n    settings:\n      resources:\n        gpu_cont: 1",
        13,
        "steps.train.settings.resources.gpu_cont",
        "gpu_count",
    ),
    ("settings:\n  resources:\n    memroy: 8GB", 11, "settings.resources.memroy", "memory"),
    ("settings:\n  resorces: {}", 10, "settings.resorces", "resources"),
    ("settings:\n  docker:\n    skip_biuld: true", 11, "settings.docker.skip_biuld", "skip_build"),
    ("settings:\n  orchestratr: {}", 10, "settings.orchestratr", "orchestrator"),
    ("settings:\n  orchestrator:\n    synchronus: 1", 11, "settings.orchestrator.synchronus", "synchronous"),
    ("retry:\n  dealy: 3", 10, "retry.dealy", "delay"),
    ("schedule:\n  cron_expression: '0 0 * * *'\n  catchpu: true", 11, "schedule.catchpu", "catchup"),
    ("  trainig: {}", 9, "parameters.trainig", "training"),
    ("  training:\n    epoch: 1", 10, "parameters.training.epoch", "epochs"),
    ("  training:\n    lora:\n      rr: 8", 11, "parameters.training.lora.rr", "r"),
    ("  training:\n    learning-rate: 1", 10, "parameters.training.learning-rate", "learning_rate"),
    (
        "  training:\n    early_stopping:\n      patiense: 1",
        11,
        "parameters.training.early_stopping.patiense",
        "patience",
    ),
]


@pytest.mark.parametrize(("added", "line", "key", "nearest"), UNKNOWN, ids=[case[2] for case in UNKNOWN])
def test_a_misspelt_key_is_named_with_its_line_and_the_nearest_name(
    config_file: Write, added: str, line: int, key: str, nearest: str
) -> None:
    (message,) = complaint(config_file(f"{TOP}{added}\n"))
    kind = "step" if key == "steps.trian" else "key"
    assert message.startswith(f"config.yaml:{line}: {key}: unknown {kind}")
    assert (f"did you mean '{nearest}'?" in message) == bool(nearest)


def test_a_misspelt_key_in_a_list_is_named(config_file: Write) -> None:
    text = TOP.replace("- files: rows.jsonl", "- files: a.jsonl\n      - files: b.jsonl\n        colums: {}")
    (message,) = complaint(config_file(text))
    assert message.startswith("config.yaml:8: parameters.data.sources[1].colums: unknown key; did you mean 'columns'?")


def test_a_misplaced_key_is_sent_home(config_file: Write) -> None:
    inner = complaint(config_file(f"{TOP}  training:\n    r: 8\n"))
    outer = complaint(config_file(f"{TOP}training:\n  epochs: 1\n"))
    resource = complaint(config_file(f"{TOP}settings:\n  gpu_count: 1\n"))
    assert "it belongs at parameters.training.lora.r" in inner[0]
    assert outer[0].startswith("config.yaml:9: training: unknown key here; it belongs at parameters.training")
    assert "it belongs at settings.resources.gpu_count" in resource[0]


def test_step_parameters_are_refused(config_file: Write) -> None:
    lines = complaint(config_file(f"{TOP}steps:\n  train:\n    parameters:\n      training: {{epochs: 1}}\n"))
    assert lines == [
        "config.yaml:11: steps.train.parameters: parameters stand under the top-level key parameters; move them"
    ]


def test_settings_of_a_component_that_the_stack_lacks_are_left_alone(config_file: Write) -> None:
    check(config_file(f"{TOP}settings:\n  orchestrator.kubernetes: {{pod_settings: {{a: 1}}}}\n"))


WRONG = [
    (
        "  training:\n    lora:\n      r: 0",
        11,
        "parameters.training.lora.r",
        "0 is impossible; it must be more than 0",
    ),
    (
        "  training:\n    lora:\n      r: many",
        11,
        "parameters.training.lora.r",
        "needs a whole number, not 'many'",
    ),
    (
        "  training:\n    lora:\n      r: 1.5",
        11,
        "parameters.training.lora.r",
        "needs a whole number, not 1.5",
    ),
    ("  training:\n    lora:\n      r: yes", 11, "parameters.training.lora.r", "needs a number, not true"),
    ("  training:\n    max_steps: yes", 10, "parameters.training.max_steps", "needs a number, not true"),
    (
        "  training:\n    lora:\n      r: null",
        11,
        "parameters.training.lora.r",
        "needs a whole number, not null",
    ),
    ("  training:\n    lora: 8", 10, "parameters.training.lora", "needs a mapping of keys, not 8"),
    ("  training: [1]", 9, "parameters.training", "needs a mapping of keys, not a list"),
    ("  training:", 9, "parameters.training", "needs a mapping of keys, not null"),
    (
        "  training:\n    lora:\n      target_modules: q_proj",
        11,
        "parameters.training.lora.target_modules",
        "a single text is a regular expression over full names; for one name write [q_proj]",
    ),
    (
        "  training:\n    lora:\n      target_modules: 5",
        11,
        "parameters.training.lora.target_modules",
        "target_modules: needs a list or a text, not 5",
    ),
    (
        "  training:\n    lora:\n      target_modules: [q_proj, 5]",
        11,
        "parameters.training.lora.target_modules[1]",
        "needs a text, not 5",
    ),
    (
        "  training:\n    lora:\n      target_modules: .*(q_proj",
        11,
        "parameters.training.lora.target_modules",
        "'.*(q_proj' is not a regular expression: missing ), unterminated subpattern",
    ),
    (
        "  training:\n    lora:\n      initialization: pissa",
        11,
        "parameters.training.lora.initialization",
        "pissa changes the base weights",
    ),
    (
        "  quantization: {kind: int8}\n  training:\n    lora:\n      initialization: loftq",
        12,
        "parameters.training.lora.initialization",
        "loftq makes up for the error of 4-bit weights, but quantization.kind is int8",
    ),
    (
        "  quantization: {kind: int8}\n  training:\n    lora:\n      dora: true",
        12,
        "parameters.training.lora.dora",
        "does not go with quantization.kind int8",
    ),
    ("  training:\n    optimizer: adamw", 10, "parameters.training.optimizer", "'adamw' is not one of"),
    ("  training:\n    optimizer: adamw_torch_fuse", 10, "parameters.training.optimizer", "'adamw_torch_fused'?"),
    ("  training:\n    betas: 0.9", 10, "parameters.training.betas", "needs a list, not 0.9"),
    ("  training:\n    betas: [0.9]", 10, "parameters.training.betas[1]", "missing"),
    ("  training:\n    betas: [0.9, 1]", 10, "parameters.training.betas[1]", "1 is impossible; it must be less than 1"),
    (
        "  training:\n    schedule: linear\n    schedule_arguments: {power: 2}",
        11,
        "parameters.training.schedule_arguments",
        "schedule_arguments.power means nothing to schedule linear; it takes none",
    ),
    (
        "  training:\n    schedule_arguments: {num_cycle: 2}",
        10,
        "parameters.training.schedule_arguments.num_cycle",
        "did you mean 'num_cycles'?",
    ),
    (
        "  training:\n    evaluate_every: 1\n    evaluations_per_epoch: 4",
        11,
        "parameters.training.evaluations_per_epoch",
        "and so does evaluate_every; remove one of them",
    ),
    (
        "  training:\n    lora:\n      target_modules: []",
        11,
        "parameters.training.lora.target_modules",
        "at least 1",
    ),
    (
        "  training:\n    learning_rate: fast",
        10,
        "parameters.training.learning_rate",
        "needs a number, not 'fast'",
    ),
    (
        "  training:\n    learning_rate: .inf",
        10,
        "parameters.training.learning_rate",
        "needs a finite number",
    ),
    ("  training:\n    schedule: linaer", 10, "parameters.training.schedule", "did you mean 'linear'?"),
    (
        "  prompt:\n    template:\n      prompt: hello",
        11,
        "parameters.prompt.template.prompt",
        "prompt must contain {instruction} exactly once",
    ),
    ("  prompt:\n    system: 5", 10, "parameters.prompt.system", "needs a text, not 5"),
    (
        "  prompt:\n    template: hello",
        10,
        "parameters.prompt.template",
        "'hello' is not a template (alpaca, chatml, llama2-chat, model, notebook, or a mapping with the key prompt)",
    ),
    (
        "  splits:\n    test: 0.6\n    validation: 0.6",
        11,
        "parameters.splits.validation",
        "sum must be below 1",
    ),
    ("  splits:\n    test: 0", 10, "parameters.splits.test", "evaluate compares base and tuned on test rows"),
    ("  splits:\n    validation: 0", 10, "parameters.splits.validation", "training.early_stopping"),
    (
        "  quantization:\n    double_quantization: maybe",
        10,
        "parameters.quantization.double_quantization",
        "true or false",
    ),
    ("steps: 5", 9, "steps", "needs a mapping of step names, not 5"),
    ("steps:\n  train:", 10, "steps.train", "needs a mapping of keys, not null"),
    ("steps:\n  train:\n    enable_cache: perhaps", 11, "steps.train.enable_cache", "true or false"),
    ("settings: 5", 9, "settings", "needs a mapping of keys, not 5"),
    ("settings:\n  resources:\n    gpu_count: -1", 11, "settings.resources.gpu_count", "must be at least 0"),
    ("settings:\n  resources:\n    memory: plenty", 11, "settings.resources.memory", "pattern"),
    (
        "settings:\n  orchestrator:\n    synchronous: perhaps",
        11,
        "settings.orchestrator.synchronous",
        "true or false",
    ),
    ("enable_cache: perhaps", 9, "enable_cache", "true or false"),
    ("run_name: 'coder-{tiem}'", 9, "run_name", "unknown placeholder {tiem} (valid: date, time)"),
    ("run_name: 'coder-{'", 9, "run_name", "is not a name with {placeholders}"),
    ("schedule:\n  cron_expression: 5", 10, "schedule.cron_expression", "needs a text, not 5"),
]


@pytest.mark.parametrize(("added", "line", "key", "reason"), WRONG, ids=[case[0].strip() for case in WRONG])
def test_a_wrong_value_is_named_in_plain_words(
    config_file: Write, added: str, line: int, key: str, reason: str
) -> None:
    (message,) = complaint(config_file(f"{TOP}{added}\n"))
    assert message.startswith(f"config.yaml:{line}: {key}: ")
    assert reason in message
    assert "pydantic" not in message
    assert "Value error" not in message


@pytest.mark.parametrize(
    ("line", "needs"),
    [
        ("evaluations_per_epoch: 2", "training.evaluations_per_epoch needs a validation set"),
        (
            "schedule: reduce_lr_on_plateau\n    warmup_ratio: 0",
            "training.schedule reduce_lr_on_plateau follows the validation loss",
        ),
    ],
)
def test_what_else_needs_validation_rows(config_file: Write, line: str, needs: str) -> None:
    text = f"{TOP}  splits:\n    validation: 0\n  training:\n    early_stopping: null\n    {line}\n"
    (message,) = complaint(config_file(text))
    assert message.startswith(f"config.yaml:10: parameters.splits.validation: is 0, but {needs}")


def test_evaluate_every_needs_validation_rows(config_file: Write) -> None:
    text = f"{TOP}  splits:\n    validation: 0\n  training:\n    early_stopping: null\n"
    check(config_file(text))
    (message,) = complaint(config_file(f"{text}    evaluate_every: 5\n"))
    assert message.startswith("config.yaml:10: parameters.splits.validation: is 0, but training.evaluate_every")


MISSING = [
    ("  data:\n    sources:\n      - files: rows.jsonl\n", 3, "parameters.data: missing; it holds sources"),
    ("  base_model:\n    hub: owner/name\n", 3, "parameters.base_model: missing; it holds hub"),
    ("    sources:\n      - files: rows.jsonl\n", 4, "parameters.data: needs a mapping of keys, not null"),
    ("  name: coder\n", 1, "model.name: missing; promote registers the result under it"),
    ("model:\n  name: coder\n", 1, "model.name: missing; promote registers the result under it"),
    ("      - files: rows.jsonl\n", 5, "parameters.data.sources: needs a list, not null"),
    ("    hub: owner/name\n", 7, "parameters.base_model: needs a mapping of keys, not null"),
]


@pytest.mark.parametrize(("removed", "line", "message"), MISSING, ids=[case[2] for case in MISSING])
def test_what_is_missing_is_named(config_file: Write, removed: str, line: int, message: str) -> None:
    assert complaint(config_file(TOP.replace(removed, "")))[0].startswith(f"config.yaml:{line}: {message}")


def test_a_source_of_no_kind_and_of_two_kinds(config_file: Write) -> None:
    none = complaint(config_file(TOP.replace("files: rows.jsonl", "license: MIT")))
    two = complaint(config_file(TOP.replace("files: rows.jsonl", "files: rows.jsonl\n        hub: a/b")))
    assert none == ["config.yaml:6: parameters.data.sources[0]: a source needs exactly one of files, hub and package"]
    assert two[0].startswith("config.yaml:6: parameters.data.sources[0].files: a source needs exactly one of")


def test_all_problems_are_shown_together_in_the_order_of_the_file(config_file: Write) -> None:
    text = TOP.replace("name:", "nam:") + "  training:\n    epochs: yes\n    lora: {r: 0, rr: 1}\nenable_cash: 1\n"
    lines = complaint(config_file(text))
    keys = [line.split(": ")[1] for line in lines]
    assert keys == [
        "model.name",
        "model.nam",
        "parameters.training.epochs",
        "parameters.training.lora.r",
        "parameters.training.lora.rr",
        "enable_cash",
    ]


def test_a_key_given_twice_names_both_lines(config_file: Write) -> None:
    (message,) = complaint(config_file(f"{TOP}  training:\n    epochs: 1\n    epochs: 2\n"))
    assert message == "config.yaml:11: parameters.training.epochs: given twice, on lines 10 and 11; keep one"


def test_values_merged_from_an_anchor_are_checked_where_they_stand(config_file: Write) -> None:
    text = "extra:\n  common: &common {epochs: 1, epoch: 2}\n" + TOP + "  training:\n    <<: *common\n    epochs: 3\n"
    (message,) = complaint(config_file(text))
    assert message.startswith("config.yaml:2: parameters.training.epoch: unknown key; did you mean 'epochs'?")


BROKEN = [
    ("", "1: the file is empty"),
    ("- a\n- b\n", "1: the file must be a mapping"),
    ("just a text\n", "1: the file must be a mapping"),
    ("a: 1\nb: [1,\n", "not valid YAML"),
    ("a: 1\n\tb: 2\n", "2: not valid YAML"),
    ("a: *nowhere\n", "1: not valid YAML: found undefined alias"),
    ("a: 1\n---\nb: 2\n", "2: not valid YAML"),
    ("a: 2020-99-99\n", "not valid YAML"),
    ("a: &a\n  b: *a\n", "contains itself"),
    ("? [1]\n: 2\n", "not valid YAML"),
    ("a: !!python/object:os.system {}\n", "not valid YAML"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[case[0] or "empty" for case in BROKEN])
def test_a_file_that_is_no_configuration_gives_one_line(config_file: Write, text: str, message: str) -> None:
    (line,) = complaint(config_file(text))
    assert message in line


def test_a_file_that_is_no_text_or_not_there_gives_one_line(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00a")
    (unreadable,) = complaint(binary)
    (missing,) = complaint(tmp_path / "missing.yaml")
    (folder,) = complaint(tmp_path)
    assert "not valid YAML in UTF-8" in unreadable
    shipped = Path(__file__).resolve().parents[2] / "configs"
    assert (
        missing == f"missing.yaml: no such file; those that come with the project are in {shipped}; copy own-data.yaml"
    )
    assert folder.endswith("cannot be read: Is a directory")


def test_dotted() -> None:
    assert dotted(("parameters", "data", "sources", 0, "files")) == "parameters.data.sources[0].files"


def test_a_bound_on_forgetting_needs_a_reference_text(config_file: Write) -> None:
    bound = "  promotion:\n    max_forgetting: 0.05\n"
    with pytest.raises(ConfigError, match=r"promotion\.max_forgetting.*which is null; give a text or remove max_f"):
        check(config_file(TOP + bound))
    check(config_file(f"{TOP}  evaluation:\n    reference_text: prose.txt\n{bound}"))
    check(config_file(f"{TOP}  promotion:\n    max_forgetting: null\n"))
    check(config_file(f"{TOP}  promotion:\n    stage: production\n"))


def test_figures_of_the_gate_are_measured(config_file: Write) -> None:
    gate = "  promotion:\n    gains: [{figure: loss}, {figure: pass@10}]\n    allowed_regressions: {runs: 0.0}\n"
    with pytest.raises(ConfigError, match=r"promotion\.gains.*pass@10 is not measured; add 10 to evaluation\.sampling"):
        check(config_file(TOP + gate))
    with pytest.raises(ConfigError, match=r"promotion\.allowed_regressions\.runs: 'runs' is not measured, since"):
        check(config_file(f"{TOP}{gate}  evaluation:\n    sandbox: {{execute: never}}\n"))
    check(config_file(f"{TOP}{gate}  evaluation:\n    sampling: {{pass_at: [1, 10]}}\n"))
    with pytest.raises(ConfigError, match=r"promotion\.gains.*'los' is no figure that is better or worse"):
        check(config_file(f"{TOP}  promotion:\n    gains: [{{figure: los}}]\n"))
