"""Holders that are lost are replaced: the last order for each job."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "replacement",
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("base", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("ordered", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "job"], ["job.organisation", "job.id"],
            name=op.f("fk_replacement_organisation_job"), ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "job", name=op.f("pk_replacement")),
    )  # fmt: skip
    op.create_index(
        op.f("ix_replacement_organisation_site_ordered"), "replacement", ["organisation", "site", "ordered"]
    )
