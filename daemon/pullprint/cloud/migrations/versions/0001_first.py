"""All tables of the first version."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "nonce",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("used", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("node", "nonce", name="pk_nonce"),
    )
    op.create_index("ix_nonce_used", "nonce", ["used"], unique=False)
    op.create_table(
        "organisation",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("order_key", sa.LargeBinary(), nullable=False),
        sa.Column("ca_key", sa.Text(), nullable=False),
        sa.Column("ca_certificate", sa.Text(), nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organisation"),
    )
    op.create_table(
        "throttle",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_throttle"),
    )
    op.create_index("ix_throttle_started", "throttle", ["started"], unique=False)
    op.create_table(
        "party_key",
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("private", sa.LargeBinary(), nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["organisation"], ["organisation.id"], name="fk_party_key_organisation"),
        sa.PrimaryKeyConstraint("organisation", "id", name="pk_party_key"),
    )
    op.create_table(
        "site",
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("networks", sa.Text(), nullable=False),
        sa.Column("owner_rule", sa.Text(), nullable=False),
        sa.Column("hold", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["organisation"], ["organisation.id"], name="fk_site_organisation"),
        sa.PrimaryKeyConstraint("organisation", "id", name="pk_site"),
    )
    op.create_table(
        "user_account",
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("jobs_version", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["organisation"], ["organisation.id"], name="fk_user_account_organisation"),
        sa.PrimaryKeyConstraint("organisation", "name", name="pk_user_account"),
    )
    op.create_index("ix_user_account_name", "user_account", ["name"], unique=False)
    op.create_table(
        "join_code",
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("managed", sa.Boolean(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "site"],
            ["site.organisation", "site.id"],
            name="fk_join_code_organisation_site",
        ),
        sa.PrimaryKeyConstraint("code_hash", name="pk_join_code"),
    )
    op.create_table(
        "node",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("identity", sa.LargeBinary(), nullable=False),
        sa.Column("managed", sa.Boolean(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("key_public", sa.LargeBinary(), nullable=False),
        sa.Column("key_expires", sa.Double(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("joined", sa.Double(), nullable=False),
        sa.Column("seen", sa.Double(), nullable=False),
        sa.Column("revoked", sa.Double(), nullable=True),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("last_event", sa.BigInteger(), nullable=False),
        sa.Column("inbox_seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "site"],
            ["site.organisation", "site.id"],
            name="fk_node_organisation_site",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_node"),
    )
    op.create_index("ix_node_organisation_site", "node", ["organisation", "site"], unique=False)
    op.create_table(
        "printer",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "site"],
            ["site.organisation", "site.id"],
            name="fk_printer_organisation_site",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_printer"),
        sa.UniqueConstraint("organisation", "site", "name", name="uq_printer_organisation_site_name"),
    )
    op.create_table(
        "session",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("used", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "user"],
            ["user_account.organisation", "user_account.name"],
            name="fk_session_organisation_user",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_hash", name="pk_session"),
    )
    op.create_index("ix_session_expires", "session", ["expires"], unique=False)
    op.create_index("ix_session_organisation_user", "session", ["organisation", "user"], unique=False)
    op.create_table(
        "inbox",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["node"], ["node.id"], name="fk_inbox_node"),
        sa.PrimaryKeyConstraint("node", "seq", name="pk_inbox"),
    )
    op.create_index("ix_inbox_expires", "inbox", ["expires"], unique=False)
    op.create_table(
        "job",
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("job_uuid", sa.Text(), nullable=False),
        sa.Column("cups_job_id", sa.BigInteger(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("submitter", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("ticket", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("missing", sa.Double(), nullable=True),
        sa.Column("cancelling", sa.Double(), nullable=True),
        sa.Column("direct_printer", sa.Text(), nullable=False),
        sa.Column("claim_hash", sa.LargeBinary(), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("cloud_key", sa.Text(), nullable=False),
        sa.Column("cloud_slot", sa.LargeBinary(), nullable=False),
        sa.Column("ballot", sa.BigInteger(), nullable=False),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.Column("pages", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["node"], ["node.id"], name="fk_job_node"),
        sa.ForeignKeyConstraint(
            ["organisation", "site"],
            ["site.organisation", "site.id"],
            name="fk_job_organisation_site",
        ),
        sa.PrimaryKeyConstraint("organisation", "id", name="pk_job"),
    )
    op.create_index("ix_job_ended_expires", "job", ["ended", "expires"], unique=False)
    op.create_index("ix_job_node_ended", "job", ["node", "ended"], unique=False)
    op.create_index("ix_job_organisation_claim_hash", "job", ["organisation", "claim_hash"], unique=False)
    op.create_index("ix_job_organisation_cloud_key", "job", ["organisation", "cloud_key"], unique=False)
    op.create_index("ix_job_organisation_owner_created", "job", ["organisation", "owner", "created"], unique=False)
    op.create_table(
        "holder",
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("voter", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["node"], ["node.id"], name="fk_holder_node"),
        sa.ForeignKeyConstraint(
            ["organisation", "job"],
            ["job.organisation", "job.id"],
            name="fk_holder_organisation_job",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "job", "node", name="pk_holder"),
    )
    op.create_index("ix_holder_node", "holder", ["node"], unique=False)
    op.create_table(
        "release",
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("ballot", sa.BigInteger(), nullable=False),
        sa.Column("printer", sa.Text(), nullable=False),
        sa.Column("printer_name", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("ticket", sa.Text(), nullable=False),
        sa.Column("forces", sa.Text(), nullable=False),
        sa.Column("issued", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "job"],
            ["job.organisation", "job.id"],
            name="fk_release_organisation_job",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "id", name="pk_release"),
        sa.UniqueConstraint("organisation", "job", "ballot", name="uq_release_organisation_job_ballot"),
    )
    op.create_table(
        "trace",
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "job"],
            ["job.organisation", "job.id"],
            name="fk_trace_organisation_job",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("organisation", "job", "source", "seq", name="pk_trace"),
    )
