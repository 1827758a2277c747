"""Every kind of mistake in a configuration file is found, on its line, with the nearest valid name."""

from pathlib import Path

import pytest

from steps.merge.params import MergeParameters
from steps.train.params import TrainingParameters
from tests.pipelines.checked import TOP, Write, check, complaint


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
    ("a: {b: 1}\nc 2\nd: 3\n", "look there and in the line above for a tab, a missing colon or an indentation"),
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
