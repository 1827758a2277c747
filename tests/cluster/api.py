"""A small Kubernetes API server: the HTTP that ZenML's orchestrator speaks, enough of it, and nothing else."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.cluster.jobs import Jobs
from tests.cluster.objects import KINDS, Objects, Refused
from tests.serving import Handler, serving

NAMESPACE = "qlora"
CONTEXT = "double"
PATH = re.compile(rf"/api(?:s/batch)?/v1/namespaces/{NAMESPACE}/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?")


class Cluster:
    """The double: its objects, the Jobs that it runs as processes, and where it answers."""

    def __init__(self, folder: Path, address: str) -> None:
        self.objects = Objects()
        self.kubeconfig = folder / "kubeconfig.yaml"
        self.jobs = Jobs(self.objects, folder, self.kubeconfig)
        self.objects.on_created = self.jobs.start
        self.fault: str | None = None
        """``refused`` and ``answer lost`` (it is made all the same) befall new CronJobs, ``down`` every request."""
        self._write_kubeconfig(address)

    def _write_kubeconfig(self, address: str) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": CONTEXT,
            "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": NAMESPACE}}],
            "clusters": [{"name": CONTEXT, "cluster": {"server": address}}],
            "users": [{"name": CONTEXT, "user": {"token": "none"}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")

    def answer(self, method: str, url: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the API server says to a request."""
        if self.fault == "down":
            raise Refused(503, "the server is currently unable to handle the request")
        parts = urlsplit(url)
        match = PATH.fullmatch(parts.path)
        if match is None or match["plural"] not in KINDS:
            raise Refused(404, f"{method} {parts.path}: the double has it not")
        plural, name = match["plural"], match["name"]
        if method == "POST":
            return self._create(plural, body)
        if method == "PATCH":
            return self.objects.change(plural, name, body)
        if method == "DELETE":
            self.jobs.stop(plural, name)
            return self.objects.delete(plural, name)
        if name:
            return self.objects.read(plural, name)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        labels = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
        phase = query.get("fieldSelector", "").removeprefix("status.phase=") or None
        api_version, kind = KINDS[plural]
        return {"apiVersion": api_version, "kind": f"{kind}List", "items": self.objects.list(plural, labels, phase)}

    def _create(self, plural: str, body: dict[str, Any]) -> dict[str, Any]:
        if plural == "cronjobs" and self.fault == "refused":
            raise Refused(403, "cronjobs is forbidden")
        made = self.objects.create(plural, body)
        if plural == "cronjobs" and self.fault == "answer lost":
            raise Refused(500, "etcdserver: request timed out")
        return made


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """A cluster that answers until the block ends; what runs in it then is ended."""

    class Api(Handler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            body = json.loads(self.body() or b"{}")
            try:
                self.answer(cluster.answer(self.command, self.path, body))
            except Refused as error:
                status = {"kind": "Status", "status": "Failure", "code": error.status, "message": str(error)}
                self.answer(status, error.status)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_request

    with serving(Api) as address:
        cluster = Cluster(folder, address)
        try:
            yield cluster
        finally:
            cluster.jobs.end()
