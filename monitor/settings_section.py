"""What every section of the settings is made of."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._\-]{1,249}$")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(BaseModel):
    """A section: unknown keys are refused, and a docstring below a field explains it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Refuse the value of one key because of the others; for validators of the whole section.

        Raises:
            PydanticCustomError: names the key, and holds its value unless that is a secret.
        """
        value: Any = getattr(self, key)
        context = {"key": key, "value": "..." if isinstance(value, SecretStr) else value, "problem": problem}
        raise PydanticCustomError("refused", "{problem}", context)
