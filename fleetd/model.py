"""The entities of the fleet API v1 and of ours under /fleetd/v1, checked by pydantic where they come in."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from fleetd.registry.records import Desired


class Entity(BaseModel):
    """Names as fleet spells them in JSON; other fields of a request are ignored, as fleet does."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")


class UnitOption(Entity):
    """One setting of a unit file."""

    section: str
    name: str
    value: str


class UnitRequest(Entity):
    """What a PUT of a unit may say. `text` is ours: the file as it was written."""

    name: str = ""
    desired_state: Desired = Field(alias="desiredState")
    options: list[UnitOption] | None = None
    text: str | None = None
    replace: bool = False


class UnitsRequest(Entity):
    """Many units at once (ours); each has its name."""

    units: list[UnitRequest]


class UnitEntity(Entity):
    """A unit: what is wanted of it, and where it is."""

    name: str
    options: list[UnitOption]
    desired_state: Desired = Field(alias="desiredState")
    current_state: Desired = Field(alias="currentState")
    hash: str = ""
    """SHA1 of the file (ours)."""
    machine_id: str = Field("", alias="machineID")


class UnitStateEntity(Entity):
    """What a machine reports of a unit."""

    name: str
    hash: str
    machine_id: str = Field(alias="machineID")
    load: str = Field(alias="systemdLoadState")
    active: str = Field(alias="systemdActiveState")
    sub: str = Field(alias="systemdSubState")


class MachineEntity(Entity):
    """A machine that lives."""

    id: str
    primary_ip: str = Field(alias="primaryIP")
    metadata: dict[str, str]
