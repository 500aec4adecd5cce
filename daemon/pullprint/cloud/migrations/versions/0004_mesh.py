"""Several holders for each job: the site's roster, who counts for a job's state, and orders that others take over."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("node", sa.Column("role", sa.Text(), nullable=False, server_default="normal"))
    op.add_column("node", sa.Column("endpoints", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("node", sa.Column("room", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("job", sa.Column("state_ballot", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("holder", sa.Column("missing", sa.Double(), nullable=True))
    _move_missing()
    op.drop_column("job", "missing")
    op.add_column("release", sa.Column("acknowledged", sa.Double(), nullable=True))
    op.add_column("release", sa.Column("due", sa.Double(), nullable=True))
    op.add_column("release", sa.Column("wished", sa.Double(), nullable=False, server_default="0"))
    op.add_column("release", sa.Column("tried", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("release", sa.Column("inbox_seq", sa.BigInteger(), nullable=True))
    op.create_index("ix_release_due", "release", ["due"], unique=False)


def _move_missing() -> None:
    job = sa.table("job", *(sa.column(name) for name in ("organisation", "id", "missing")))
    holder = sa.table("holder", *(sa.column(name) for name in ("organisation", "job", "missing")))
    since = (
        sa.select(job.c.missing)
        .where(job.c.organisation == holder.c.organisation, job.c.id == holder.c.job)
        .scalar_subquery()
    )
    op.get_bind().execute(sa.update(holder).values(missing=since))
