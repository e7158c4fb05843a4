"""The embedded PostgreSQL: a durable server of our own in the data folder, for whoever has none to point us at."""

from watchword_server.embedded.postgres import EmbeddedPostgres
from watchword_server.embedded.programs import EmbeddedPostgresError

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]
