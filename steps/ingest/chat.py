"""Reads a chat as one exchange: what the user asks and what the assistant answers."""

from steps.ingest.unreadable import UnreadableRow

ROLES = ("system", "user", "assistant")


def exchange_of(value: object, where: str) -> tuple[object, object]:
    """The contents of the user's and of the assistant's message.

    System messages are left out, since the prompt's template has a system text of its own. A chat of several
    exchanges is refused: a row is one question and one answer, and later answers make no sense alone.

    Args:
        value: a list of ``{"role": ..., "content": ...}``.
        where: the column, for the reason.

    Raises:
        UnreadableRow: anything but one message of the user and then one of the assistant.
    """
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else f"a value of type {type(value).__name__}"
        raise UnreadableRow(f"{where} holds {found}, not a list of messages")
    spoken = [_message(message, f"{where}: message {number}") for number, message in enumerate(value, start=1)]
    spoken = [(role, content) for role, content in spoken if role != "system"]
    roles = [role for role, _ in spoken]
    for role in ("user", "assistant"):
        if role not in roles:
            raise UnreadableRow(f"{where} has no message of the {role}")
    if len(roles) > 2:
        raise UnreadableRow(f"{where} holds more than one exchange ({len(roles)} messages of user and assistant)")
    if roles != ["user", "assistant"]:
        raise UnreadableRow(f"{where} begins with the assistant's message, not with the user's")
    return spoken[0][1], spoken[1][1]


def _message(message: object, where: str) -> tuple[str, object]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
        raise UnreadableRow(f"{where} is no object with role and content")
    role = message["role"]
    if role not in ROLES:
        raise UnreadableRow(f"{where} has the role {role[:40]!a}, not {', '.join(ROLES[:2])} or {ROLES[2]}")
    return role, message["content"]
