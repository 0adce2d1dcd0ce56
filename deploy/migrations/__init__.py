"""The history of the database schema, for Alembic; ``monitor.adapters.migrations`` runs it."""
