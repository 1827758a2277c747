"""The Job controller and the kubelet of a cluster double: a pod is a local process with the pod's environment."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.cluster.objects import Manifest, Objects, now

ROOT = Path(__file__).resolve().parents[2]
IMAGE = Path(__file__).with_name("image")
INHERITED = ("PATH", "HOME", "OMP_NUM_THREADS", "ZENML_CONFIG_PATH", "ZENML_ANALYTICS_OPT_IN")


class Jobs:
    """Runs the pods of Jobs one after the other until one succeeds or the Job has failed, each Job in a thread."""

    def __init__(self, objects: Objects, folder: Path, kubeconfig: Path) -> None:
        self.objects = objects
        self.folder = folder
        self.kubeconfig = kubeconfig
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.disrupted: set[str] = set()
        self.threads: list[threading.Thread] = []

    def start(self, plural: str, manifest: Manifest) -> None:
        """The controller sees a new object."""
        if plural == "jobs":
            thread = threading.Thread(target=self._run, args=(manifest,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def volume(self, claim: str) -> Path:
        """What a persistent volume claim is bound to."""
        folder = self.folder / "volumes" / claim
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log(self, pod: str) -> str:
        """What a pod has printed."""
        return (self.folder / f"{pod}.log").read_text(encoding="utf-8", errors="replace")

    def preempt(self, pod: str) -> None:
        """Take the node away from a pod: the condition, and the signal that the kubelet sends."""
        self.disrupted.add(pod)
        self.processes[pod].send_signal(signal.SIGTERM)

    def stop(self, plural: str, name: str) -> None:
        """A Job that is deleted takes its pods along."""
        if plural == "jobs":
            for pod in self.objects.list("pods", {"job-name": name}):
                process = self.processes.get(pod["metadata"]["name"])
                if process is not None and process.poll() is None:
                    process.terminate()

    def end(self) -> None:
        """Nothing runs any more."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        for thread in self.threads:
            thread.join(timeout=10)

    def _run(self, job: Manifest) -> None:
        name, spec = job["metadata"]["name"], job["spec"]
        failures = 0
        for attempt in range(100):
            pod = f"{name}-{attempt:05d}"
            code = self._run_pod(pod, name, spec["template"])
            if code == 0:
                self._conclude(name, "Complete", "")
                return
            rules = (spec.get("podFailurePolicy") or {}).get("rules", [])
            action = next((rule["action"] for rule in rules if self._matches(rule, pod, code)), "Count")
            failures += action == "Count"
            if action == "FailJob" or failures > spec.get("backoffLimit", 6):
                self._conclude(name, "Failed", f"pod {pod} ended with code {code}")
                return

    def _matches(self, rule: dict[str, Any], pod: str, code: int) -> bool:
        if "onExitCodes" in rule:
            values, operator = rule["onExitCodes"]["values"], rule["onExitCodes"]["operator"]
            return bool((code in values) == (operator == "In"))
        return pod in self.disrupted and any(one["type"] == "DisruptionTarget" for one in rule["onPodConditions"])

    def _conclude(self, job: str, kind: str, message: str) -> None:
        condition = {"type": kind, "status": "True", "message": message, "lastTransitionTime": now()}
        with self.objects.lock:
            if ("jobs", job) in self.objects.stored:
                self.objects.change("jobs", job, {"status": {"conditions": [condition]}})

    def _run_pod(self, pod: str, job: str, template: Manifest) -> int:
        metadata = template.get("metadata") or {}
        labels = {**(metadata.get("labels") or {}), "job-name": job}
        manifest = {"metadata": {"name": pod, "labels": labels}, "spec": template["spec"]}
        self.objects.create("pods", manifest)
        container = template["spec"]["containers"][0]
        command = [*container["command"], *container.get("args", [])]
        command[0] = sys.executable if command[0] == "python" else command[0]
        with (self.folder / f"{pod}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment(pod, template["spec"]), stdout=log, stderr=subprocess.STDOUT
            )
            self.processes[pod] = process
            self.objects.change("pods", pod, {"status": {"phase": "Running"}})
            code = process.wait()
        state = {"terminated": {"exitCode": code % 256, "reason": "Error" if code else "Completed"}}
        status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [_status(container, state)]}
        self.objects.change("pods", pod, {"status": status})
        return code % 256

    def _environment(self, pod: str, spec: Manifest) -> dict[str, str]:
        container = spec["containers"][0]
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment |= {"POD_NAME": pod, "PROJECT": str(ROOT), "PYTHONPATH": f"{IMAGE}{os.pathsep}{ROOT}"}
        environment["KUBECONFIG"] = str(self.kubeconfig)
        for source in container.get("envFrom") or []:
            environment |= self._secret(source["secretRef"]["name"])
        for one in container.get("env") or []:
            reference = one.get("valueFrom", {}).get("secretKeyRef")
            value = self._secret(reference["name"])[reference["key"]] if reference else one.get("value", "")
            environment[one["name"]] = self._on_this_machine(value, spec)
        return environment

    def _secret(self, name: str) -> dict[str, str]:
        found = self.objects.stored.get(("secrets", name), {})
        return dict(found.get("stringData", {}))

    def _on_this_machine(self, value: str, spec: Manifest) -> str:
        """A path below a claim's mount, where the claim's folder is."""
        claims = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in spec.get("volumes") or []
            if volume.get("persistentVolumeClaim")
        }
        for mount in spec["containers"][0].get("volumeMounts") or []:
            path = mount["mountPath"]
            if mount["name"] in claims and (value == path or value.startswith(f"{path}/")):
                return str(self.volume(claims[mount["name"]])) + value[len(path) :]
        return value


def _status(container: Manifest, state: Manifest) -> Manifest:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": False,
        "restartCount": 0,
    } | {"state": state}
