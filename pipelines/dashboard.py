"""Opens the way to ZenML's dashboard before ``zenml login --local``, and back after ``zenml logout --local``."""

import socket
import sys
from urllib.parse import urlsplit

from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration
from zenml.models import UserUpdate


def leave_dead_server() -> None:
    """Go back to the local store from a server of this machine that is gone, as after a restart of the machine.

    ZenML 0.98 stays with it: every command fails then, and ``zenml logout --local`` says that it is done.
    """
    configuration = GlobalConfiguration()
    address = urlsplit(configuration.store_configuration.url)
    if address.hostname not in ("127.0.0.1", "localhost"):
        return
    try:
        socket.create_connection((address.hostname, address.port or 80), timeout=5).close()
    except OSError:
        configuration.set_default_store()


def skip_survey() -> None:
    """Decline ZenML's newsletter for a user who was never asked.

    Without an answer the dashboard shows a form that demands a name and an e-mail address before any run. An answer
    that a user gave stays. ZenML 0.98 takes this one in the local store alone; its server drops it.
    """
    client = Client()
    user = client.get_user(client.active_user.id)
    if user.email_opted_in is None:
        answer = UserUpdate(email_opted_in=False, user_metadata={"finished_onboarding_survey": True})
        client.zen_store.update_user(user.id, answer)


if __name__ == "__main__":
    leave_dead_server()
    if sys.argv[1:] != ["stopped"]:
        skip_survey()
