"""Every wrong value, and every combination that does not go together, is named in plain words."""

import pytest

from steps.errors import ConfigError
from tests.pipelines.checked import TOP, Write, check, complaint

WRONG = [
    ("  training:\n    lora:\n      r: 0", 11, "parameters.training.lora.r", "0 is impossible; it must be more than 0"),
    ("  training:\n    lora:\n      r: many", 11, "parameters.training.lora.r", "needs a whole number, not 'many'"),
    ("  training:\n    lora:\n      r: 1.5", 11, "parameters.training.lora.r", "needs a whole number, not 1.5"),
    ("  training:\n    lora:\n      r: yes", 11, "parameters.training.lora.r", "needs a number, not true"),
    ("  training:\n    max_steps: yes", 10, "parameters.training.max_steps", "needs a number, not true"),
    ("  training:\n    lora:\n      r: null", 11, "parameters.training.lora.r", "needs a whole number, not null"),
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
    ("  training:\n    lora:\n      target_modules: []", 11, "parameters.training.lora.target_modules", "at least 1"),
    ("  training:\n    learning_rate: fast", 10, "parameters.training.learning_rate", "needs a number, not 'fast'"),
    ("  training:\n    learning_rate: .inf", 10, "parameters.training.learning_rate", "needs a finite number"),
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
    ("  splits:\n    test: 0.6\n    validation: 0.6", 11, "parameters.splits.validation", "sum must be below 1"),
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
    ("settings:\n  orchestrator:\n    synchronous: perhaps", 11, "settings.orchestrator.synchronous", "true or false"),
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
        ("evaluate_every: 5", "training.evaluate_every needs a validation set"),
        ("evaluations_per_epoch: 2", "training.evaluations_per_epoch needs a validation set"),
        (
            "schedule: reduce_lr_on_plateau\n    warmup_ratio: 0",
            "training.schedule reduce_lr_on_plateau follows the validation loss",
        ),
    ],
)
def test_what_else_needs_validation_rows(config_file: Write, line: str, needs: str) -> None:
    text = f"{TOP}  splits:\n    validation: 0\n  training:\n    early_stopping: null\n"
    check(config_file(text))
    (message,) = complaint(config_file(f"{text}    {line}\n"))
    assert message.startswith(f"config.yaml:10: parameters.splits.validation: is 0, but {needs}")


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
