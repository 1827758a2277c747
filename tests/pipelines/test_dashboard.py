"""The dashboard opens on the runs, not on a form."""

from zenml.client import Client
from zenml.models import UserUpdate

from pipelines.dashboard import skip_survey


def test_an_unanswered_survey_is_declined_and_an_answer_stays() -> None:
    client = Client()
    assert client.active_user.email_opted_in is None
    skip_survey()
    assert client.get_user(client.active_user.id).email_opted_in is False
    client.zen_store.update_user(client.active_user.id, UserUpdate(email="a@b.example", email_opted_in=True))
    skip_survey()
    assert client.get_user(client.active_user.id).email_opted_in is True
