"""The base of every room's parameter model."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Parameters(BaseModel):
    """Parameters that refuse unknown keys and cannot change after they were read.

    pydantic reads YAML's ``yes`` as 1 where a number is wanted; here that is an error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _no_booleans_for_numbers(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for name, field in cls.model_fields.items():
                if isinstance(values.get(name), bool) and field.annotation in (int, float):
                    raise ValueError(f"{name}: {values[name]} is not a number")
        return values
