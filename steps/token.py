"""The token of the Hugging Face hub's client stays out of what a run says and keeps."""

from steps.errors import causes

HIDDEN = "(token)"


def without_token(error: Exception) -> Exception:
    """The error itself, the token gone from its text and from those of its causes.

    ZenML stores the traceback of a failed step, and a proxy's answer to a refused request may repeat its headers.
    """
    from huggingface_hub import get_token

    token = get_token()
    if token:
        for cause in causes(error):
            cause.args = tuple(_hidden(argument, token) for argument in cause.args)
    return error


def _hidden(argument: object, token: str) -> object:
    return argument.replace(token, HIDDEN) if isinstance(argument, str) else argument
