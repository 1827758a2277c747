"""The token of the Hugging Face hub's client stays out of what a run says and keeps."""

HIDDEN = "(token)"


def without_token(error: Exception) -> Exception:
    """The error itself, the token gone from its text and from those of its causes.

    ZenML stores the traceback of a failed step, and a proxy's answer to a refused request may repeat its headers.
    """
    from huggingface_hub import get_token

    token = get_token()
    cause: BaseException | None = error
    while token and cause is not None:
        cause.args = tuple(_hidden(argument, token) for argument in cause.args)
        cause = cause.__cause__ or cause.__context__
    return error


def _hidden(argument: object, token: str) -> object:
    return argument.replace(token, HIDDEN) if isinstance(argument, str) else argument
