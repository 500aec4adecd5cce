"""Run by Alembic, inside the transaction that `migrations.upgrade` holds."""

from alembic import context

from pullprint.cloud.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
