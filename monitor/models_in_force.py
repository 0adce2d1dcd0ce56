"""Which model inspects which camera now, for commands."""

from __future__ import annotations

from sqlalchemy import Engine

from monitor.adapters.model_desk import SqlModelDesk
from monitor.assignments import NO_MODEL, Chosen, PerCamera, Role, choose
from monitor.settings import Settings
from schemas.artifacts import read_manifest


def models_in_force(settings: Settings, engine: Engine) -> PerCamera[Chosen]:
    """Return the model of each camera: the one that was assigned, or else the settings'.

    Raises:
        BundleError: the settings' bundle is missing or damaged.
        StoreUnavailableError: the database is away.
    """
    bundle = settings.model.bundle
    default = Chosen(read_manifest(bundle).model_id, bundle.resolve())
    return choose(SqlModelDesk(engine).in_force(), default)


def shadows_in_force(engine: Engine) -> PerCamera[Chosen]:
    """Return the shadow of each camera; ``NO_MODEL`` if it has none.

    Raises:
        StoreUnavailableError: the database is away.
    """
    return choose(SqlModelDesk(engine).in_force(Role.SHADOW), NO_MODEL)
