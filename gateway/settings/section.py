"""What all tables of the settings are, and the kinds of values they have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
ByteCount = Annotated[int, Field(ge=1)]


class SettingsError(Exception):
    """Settings that can't be used; the text is for the operator, a line for each mistake."""


class Section(BaseModel):
    """A table of the settings; refuses keys it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True)
