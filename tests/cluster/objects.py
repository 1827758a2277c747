"""The objects of a cluster double: kept in memory, checked against Kubernetes' own schemas as they arrive."""

import threading
import uuid
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import kubernetes_validate

Manifest = dict[str, Any]
KUBERNETES = "1.31"
"""A version whose schemas are used."""

KINDS = {
    "cronjobs": ("batch/v1", "CronJob"),
    "jobs": ("batch/v1", "Job"),
    "pods": ("v1", "Pod"),
    "secrets": ("v1", "Secret"),
}


class Refused(Exception):
    """An answer that is no success: its HTTP status and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Objects:
    """Create, read, list, change and delete, as an API server does; every answer is a copy."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.stored: dict[tuple[str, str], Manifest] = {}
        self.submitted: list[Manifest] = []
        """Every manifest as it came."""
        self.on_created: Callable[[str, Manifest], None] = lambda _kind, _manifest: None

    def create(self, plural: str, manifest: Manifest) -> Manifest:
        """Store a new object under its name."""
        api_version, kind = KINDS[plural]
        manifest = {**manifest, "apiVersion": api_version, "kind": kind}
        try:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(map(str, error.path))
            raise Refused(422, f"{kind} {where}: {error.message}") from error
        with self.lock:
            self.submitted.append(deepcopy(manifest))
            name = manifest["metadata"]["name"]
            if (plural, name) in self.stored:
                raise Refused(409, f"{plural} {name} exists")
            manifest["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
            self.stored[plural, name] = {"status": {}, **manifest}
        self.on_created(plural, deepcopy(manifest))
        return deepcopy(manifest)

    def read(self, plural: str, name: str) -> Manifest:
        """One object."""
        with self.lock:
            if (plural, name) not in self.stored:
                raise Refused(404, f"{plural} {name} not found")
            return deepcopy(self.stored[plural, name])

    def list(self, plural: str, labels: Mapping[str, str], phase: str | None = None) -> list[Manifest]:
        """Those that have all the labels, and the phase where one is asked for."""
        with self.lock:
            found = [deepcopy(one) for (kind, _), one in self.stored.items() if kind == plural]
        return [
            one
            for one in found
            if labels.items() <= (one["metadata"].get("labels") or {}).items()
            and phase in (None, one.get("status", {}).get("phase"))
        ]

    def change(self, plural: str, name: str, change: Manifest) -> Manifest:
        """Merge a change into an object."""
        with self.lock:
            self.read(plural, name)
            self.stored[plural, name] = merged(self.stored[plural, name], change)
            return self.read(plural, name)

    def delete(self, plural: str, name: str) -> Manifest:
        """Take an object away."""
        with self.lock:
            found = self.read(plural, name)
            del self.stored[plural, name]
            return found


def merged(below: Any, above: Any) -> Any:
    """A merge patch (RFC 7386), but that null leaves a value as it is."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return deepcopy(above)
    return below | {key: merged(below.get(key), value) for key, value in above.items() if value is not None}


def now() -> str:
    """The time as Kubernetes writes it, with fractions so that pods of one second keep their order."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
