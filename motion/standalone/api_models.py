"""What the API tells about scripts: `modules.api.models`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ScriptArg(BaseModel):
    """One argument of a script."""

    label: str | None = Field(default=None, title="Label", description="Name of the argument in UI")
    value: Any | None = Field(default=None, title="Value", description="Default value of the argument")
    minimum: Any | None = Field(default=None, title="Minimum", description="Minimum allowed value for the argument")
    maximum: Any | None = Field(default=None, title="Maximum", description="Maximum allowed value for the argument")
    step: Any | None = Field(default=None, title="Step", description="Step for changing value of the argument")
    choices: list[Any] | None = Field(default=None, title="Choices", description="Possible values for the argument")


class ScriptInfo(BaseModel):
    """One script and its arguments, in order."""

    name: str | None = Field(default=None, title="Name", description="Script name")
    is_alwayson: bool | None = Field(default=None, title="IsAlwayson", description="Whether the script always runs")
    is_img2img: bool | None = Field(default=None, title="IsImg2img", description="Whether it is the img2img script")
    args: list[ScriptArg] = Field(title="Arguments", description="List of script's arguments")
