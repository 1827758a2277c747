"""Whether a container can run the pipeline: its code loads, ZenML's server answers, the artifact store is there.

Exit code 0 and one line of what was found; 1 and the reason. For HEALTHCHECK in the Dockerfile, and for probes.
"""

import logging
import sys

from zenml.client import Client


def main() -> int:
    """Ask all three; the exit code."""
    try:
        import pipelines.finetune  # noqa: F401 - that it loads is the question

        client = Client()
        server = client.zen_store.get_store_info()
        store = client.active_stack.artifact_store
        if not store.exists(store.path):
            raise FileNotFoundError(f"artifact store {store.name}: {store.path} is not there")
    except Exception as error:  # whatever it is, a probe wants one line
        sys.stderr.write(f"not healthy: {type(error).__name__}: {error}\n")
        return 1
    sys.stdout.write(f"healthy: ZenML {server.version} at {client.zen_store.url}, artifact store {store.path}\n")
    return 0


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.exit(main())
