"""What a person sees on the console while a run goes on."""

import logging
import os
import warnings

from steps.errors import PipelineError

QUIET_LOGGERS = ("transformers", "datasets", "great_expectations", "trl", "peft", "accelerate")

ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "BITSANDBYTES_NOWELCOME": "1",
    "ZENML_ANALYTICS_OPT_IN": "false",
}
"""Defaults for this process and the ones that it starts; a value that the user has set stays.

ZenML's analytics would send each run to its maker's server; the user's stored choice is not touched.
"""


class WithoutTraceback(logging.Filter):
    """Keeps the traceback of a user's error off the console: its message is shown at the end of the run."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without its traceback where that is a user's error."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PipelineError):
            record.exc_info = record.exc_text = None
        return True


_WITHOUT_TRACEBACK = WithoutTraceback()


def quiet_console() -> None:
    """Keep libraries' chatter off the console; ZenML's lines on steps and every real error stay."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_WITHOUT_TRACEBACK)
    for category in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.simplefilter("ignore", category)
