"""A small Kubernetes API server: the HTTP that ZenML's orchestrator speaks, enough of it, and nothing else."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.cluster.jobs import Jobs
from tests.cluster.objects import KINDS, Objects, Refused

NAMESPACE = "qlora"
CONTEXT = "double"
PATH = re.compile(rf"/api(?:s/batch)?/v1/namespaces/{NAMESPACE}/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?")


class Cluster:
    """The double: its objects, the Jobs that it runs as processes, and where it answers."""

    def __init__(self, folder: Path, port: int) -> None:
        self.objects = Objects()
        self.kubeconfig = folder / "kubeconfig.yaml"
        self.jobs = Jobs(self.objects, folder, self.kubeconfig)
        self.objects.on_created = self.jobs.start
        self.fault: str | None = None
        """``refused`` and ``answer lost`` (it is made all the same) befall new CronJobs, ``down`` every request."""
        self._write_kubeconfig(port)

    def _write_kubeconfig(self, port: int) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": CONTEXT,
            "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": NAMESPACE}}],
            "clusters": [{"name": CONTEXT, "cluster": {"server": f"http://127.0.0.1:{port}"}}],
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
def serving(folder: Path) -> Iterator[Cluster]:
    """A cluster that answers until the block ends; what runs in it then is ended."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            try:
                status, answer = 200, cluster.answer(self.command, self.path, body)
            except Refused as error:
                status = error.status
                answer = {"kind": "Status", "status": "Failure", "code": status, "message": str(error)}
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_request

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cluster = Cluster(folder, server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield cluster
    finally:
        cluster.jobs.end()
        server.shutdown()
        server.server_close()
