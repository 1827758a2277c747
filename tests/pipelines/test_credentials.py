"""A configuration that holds a credential is refused, and the refusal does not repeat it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import check_config
from pipelines.credentials import credentials_in
from pipelines.document import dotted
from pipelines.finetune import finetune
from steps.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
HUB = "hf_" + "PLANTEDplanted" * 3
TOP = """\
model: {name: coder}
parameters:
  data:
    sources: [{files: rows.jsonl}]
  base_model: {hub: owner/name}
"""


@pytest.mark.parametrize(
    ("more", "key", "why"),
    [
        (f"environment: {{X: {HUB}}}", "environment.X", "looks like a token of the Hugging Face hub"),
        ("environment: {HF_TOKEN: whatever}", "environment.HF_TOKEN", "is a credential by the name of its key"),
        (f"  training: {{epochs: {HUB}}}", "parameters.training.epochs", "looks like a token of the Hugging Face hub"),
        (f"  exports: {{hub: {{token: {HUB}}}}}", "parameters.exports.hub.token", "looks like a token"),
        (
            "settings: {docker: {environment: {AWS: AKIAPLANTEDPLANTEDPL}}}",
            "settings.docker.environment.AWS",
            "looks like an access key of AWS",
        ),
        (
            "extra: {env: [{name: API_KEY, value: planted}]}",
            "extra.env[0].value",
            "is a credential, since its name is API_KEY",
        ),
        ("extra: {store: 's3://key:planted@host/x'}", "extra.store", "looks like an address with a password"),
        ("extra: {github: ghp_plantedPLANTEDplantedPLANTEDplantedPLA}", "extra.github", "looks like a token of GitHub"),
    ],
)
def test_a_credential_is_refused_on_its_line(config_file: Callable[[str], Path], more: str, key: str, why: str) -> None:
    path = config_file(TOP + more + "\n")
    with pytest.raises(ConfigError) as caught:
        check_config(path, finetune.parameters, finetune.step_names).require()
    (line,) = (
        line for line in str(caught.value).splitlines() if f": {key}: " in line
    )  # and nothing else of that value
    assert line.startswith(f"{path}:6: {key}: {why}")
    assert "docs/stacks.md, Secrets" in line
    assert "planted" not in str(caught.value).lower()


def test_what_only_names_a_secret_passes() -> None:
    values = {
        "secrets": ["hub"],
        "environment": {"HF_TOKEN": "{{hub.token}}", "HF_HOME": "/models"},
        "extra": {
            "authentication_secret": "s3",
            "pass_zenml_token_as_secret": True,
            "max_new_tokens": 160,
            "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
            "address": "http://127.0.0.1:8080/a@b",
        },
        "parameters": {"prompt": {"template": {"prompt": "{system} password: {instruction}"}}},
    }
    assert [dotted(problem.path) for problem in credentials_in(values)] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/**/*.yaml")), ids=lambda path: path.name)
def test_no_shipped_configuration_has_one(path: Path) -> None:
    import yaml

    assert list(credentials_in(yaml.safe_load(path.read_text(encoding="utf-8")))) == []
