"""Votes that nodes lend to the cloud when they go to sleep."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "loan",
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("vote", sa.Text(), nullable=False),
        sa.Column("over", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["node"], ["node.id"], name="fk_loan_node"),
        sa.ForeignKeyConstraint(
            ["organisation", "job"], ["job.organisation", "job.id"], name="fk_loan_organisation_job",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "job", "node", name="pk_loan"),
    )  # fmt: skip
    op.create_index("ix_loan_node", "loan", ["node"], unique=False)
