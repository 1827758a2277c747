"""An S3 server on this machine, and a ZenML stack that stores there with credentials from a ZenML secret."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import boto3
import pytest
from moto.server import ThreadedMotoServer
from zenml.client import Client
from zenml.enums import StackComponentType

BUCKET = "artifacts"
SECRET = "s3-credentials"
KEY = "PLANTEDKEYPLANTEDKEY"
SECRET_KEY = "planted/secret/access/key/planted/secret"
ORIGINS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
"""Where AWS's client looks for credentials of its own; without them only the secret's can have been used."""


@contextmanager
def s3_stack(name: str) -> Iterator[str]:
    """Make the stack the active one; the endpoint of its server. What was active before is again at the end."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs each request
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client, before = Client(), Client().active_stack_model.id
    with pytest.MonkeyPatch.context() as patch:
        for variable in ORIGINS:
            patch.delenv(variable, raising=False)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # else it would ask a cloud's own server
        bucket(endpoint).create()
        try:
            _register(name, endpoint)
            client.activate_stack(name)
            yield endpoint
        finally:
            client.activate_stack(before)
            client.delete_stack(name)
            client.delete_stack_component(name, StackComponentType.ARTIFACT_STORE)
            client.delete_secret(SECRET)
            server.stop()


def bucket(endpoint: str):  # type: ignore[no-untyped-def]  # boto3 makes its classes when it runs
    """The bucket of the store."""
    session = boto3.Session(KEY, SECRET_KEY, region_name="us-east-1")
    return session.resource("s3", endpoint_url=endpoint).Bucket(BUCKET)


def _register(name: str, endpoint: str) -> None:
    client = Client()
    client.create_secret(SECRET, {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET_KEY})
    configuration: dict[str, Any] = {
        "path": f"s3://{BUCKET}",
        "authentication_secret": SECRET,
        "client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"},
    }
    client.create_stack_component(
        name,
        flavor="s3",
        component_type=StackComponentType.ARTIFACT_STORE,
        configuration=configuration,
    )
    components: dict[StackComponentType, str | UUID] = {
        StackComponentType.ORCHESTRATOR: "default",
        StackComponentType.ARTIFACT_STORE: name,
    }
    client.create_stack(name, components)
