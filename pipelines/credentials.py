"""Credentials: refused in a configuration, which ZenML and every model's provenance keep, and starred in messages."""

import os
import re
from collections.abc import Iterator

from pipelines.document import KeyPath, Problem

FORMS = {
    "a token of the Hugging Face hub": r"\bhf_[A-Za-z0-9]{20,}",
    "an access key of AWS": r"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
    "a token of GitHub": r"\b(gh[opusr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})",
    "a token of GitLab": r"\bglpat-[\w-]{20,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "an address with a password": r"\b\w+://[^/\s:@]*:[^/\s@]+@",
}
"""What is recognised wherever it stands, by the prefix or shape that its issuer gives it."""

NAMES = re.compile(r"(.*_)?(token|password|api_key|access_key|access_key_id|secret_key|secret)", re.IGNORECASE)
"""Keys whose text is a credential whatever it looks like."""

REFERENCES = re.compile(r"\{\{.*\}\}|\$\{?\w+\}?")
"""``{{secret.key}}`` names a ZenML secret, ``${NAME}`` an environment variable."""

NAMES_OF_SECRETS = {"authentication_secret"}
"""Keys of ZenML's that hold the name of a secret, not its value."""

VARIABLES = re.compile(r"TOKEN(?!IZER)|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
"""Environment variables whose values are starred; wider than :data:`NAMES`, since a star too many does no harm."""

USERS = re.compile(r"(?<=://)[^/\s@]+(?=@)")
"""User and password of an address, or a user alone: starred, the address stays readable."""

ADVICE = (
    "runs, models and ZenML's database keep what a configuration says; take it out, revoke it if the file was shared, "
    "and give it by an environment variable or a ZenML secret (docs/stacks.md, Secrets)"
)


def credentials_in(value: object, path: KeyPath = ()) -> Iterator[Problem]:
    """Every text of a configuration that is a credential by its form or by the name of its key; it is not repeated."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from credentials_in(child, (*path, key))
        if is_credential(value.get("name"), value.get("value")):  # of a pod's env, name and value stand side by side
            yield Problem((*path, "value"), f"is a credential, since its name is {value['name']}; {ADVICE}")
    elif isinstance(value, list):
        for position, child in enumerate(value):
            yield from credentials_in(child, (*path, position))
    elif isinstance(value, str):
        form = next((name for name, pattern in FORMS.items() if re.search(pattern, value)), None)
        if form is not None:
            yield Problem(path, f"looks like {form}; {ADVICE}")
        elif is_credential(path[-1] if path else None, value):
            yield Problem(path, f"is a credential by the name of its key; {ADVICE}")


def is_credential(name: object, value: object) -> bool:
    """Whether the text under such a name is one; a reference to where it is kept is not."""
    if not (isinstance(name, str) and isinstance(value, str) and value) or name in NAMES_OF_SECRETS:
        return False
    return NAMES.fullmatch(name) is not None and REFERENCES.fullmatch(value) is None


def without_secrets(text: str) -> str:
    """Stars for whatever is or looks like a token, a password or a key, wherever it came from."""
    values = [value for name, value in os.environ.items() if VARIABLES.search(name) and len(value) >= 4]
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    return re.sub("|".join(FORMS.values()), "***", USERS.sub("***", text))
