"""The dashboard opens on the runs, not on a form."""

import socket
from types import SimpleNamespace

import pytest
from zenml.client import Client
from zenml.models import UserUpdate

from pipelines.dashboard import leave_dead_server, skip_survey


def test_an_unanswered_survey_is_declined_and_an_answer_stays() -> None:
    client = Client()
    assert client.active_user.email_opted_in is None
    skip_survey()
    assert client.get_user(client.active_user.id).email_opted_in is False
    client.zen_store.update_user(client.active_user.id, UserUpdate(email="a@b.example", email_opted_in=True))
    skip_survey()
    assert client.get_user(client.active_user.id).email_opted_in is True


@pytest.mark.parametrize(
    ("host", "listens", "left"),
    [("127.0.0.1", False, True), ("127.0.0.1", True, False), ("zenml.example.com", False, False)],
)
def test_a_server_of_this_machine_that_is_gone_is_left(
    monkeypatch: pytest.MonkeyPatch, host: str, listens: bool, left: bool
) -> None:
    calls: list[str] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()
        configuration = SimpleNamespace(
            store_configuration=SimpleNamespace(url=f"http://{host}:{server.getsockname()[1]}"),
            set_default_store=lambda: calls.append("left"),
        )
        monkeypatch.setattr("pipelines.dashboard.GlobalConfiguration", lambda: configuration)
        leave_dead_server()
    assert calls == ["left"] * left
