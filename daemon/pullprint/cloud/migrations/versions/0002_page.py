"""What the release page needs: short codes and capabilities of printers, pictures, accounts and device logins."""

import secrets

import sqlalchemy as sa
from alembic import op

from pullprint.model.owner import new_printer_code

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("session", sa.Column("id", sa.Text(), nullable=False, server_default=""))
    op.add_column("session", sa.Column("name", sa.Text(), nullable=False, server_default=""))
    op.add_column("session", sa.Column("remember", sa.Boolean(), nullable=False, server_default=sa.false()))
    _number_sessions()
    op.add_column("printer", sa.Column("code", sa.Text(), nullable=False, server_default=""))
    op.add_column("printer", sa.Column("ready", sa.Boolean(), nullable=True))
    op.add_column("printer", sa.Column("trouble", sa.Text(), nullable=False, server_default=""))
    op.add_column("printer", sa.Column("can", sa.Text(), nullable=False, server_default=""))
    op.add_column("printer", sa.Column("asked", sa.Double(), nullable=True))
    op.add_column("printer", sa.Column("asked_by", sa.Text(), nullable=False, server_default=""))
    _code_printers()
    with op.batch_alter_table("printer") as printer:
        printer.create_unique_constraint("uq_printer_organisation_code", ["organisation", "code"])
    op.add_column("job", sa.Column("printer_name", sa.Text(), nullable=False, server_default=""))
    op.add_column("job", sa.Column("trouble", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("job", sa.Column("picture", sa.LargeBinary(), nullable=True))
    op.create_index("ix_job_organisation_owner_ended_id", "job", ["organisation", "owner", "ended", "id"], unique=False)
    op.create_table(
        "account",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["node"], ["node.id"], name="fk_account_node"),
        sa.ForeignKeyConstraint(
            ["organisation", "user"],
            ["user_account.organisation", "user_account.name"],
            name="fk_account_organisation_user",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("node", "name", name="pk_account"),
    )
    op.create_index("ix_account_organisation_user", "account", ["organisation", "user"], unique=False)
    op.create_table(
        "login",
        sa.Column("device_hash", sa.LargeBinary(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("user_hash", sa.LargeBinary(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("interval", sa.BigInteger(), nullable=False),
        sa.Column("polled", sa.Double(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["node"], ["node.id"], name="fk_login_node"),
        sa.PrimaryKeyConstraint("device_hash", name="pk_login"),
        sa.UniqueConstraint("organisation", "user_hash", name="uq_login_organisation_user_hash"),
    )
    op.create_index("ix_login_expires", "login", ["expires"], unique=False)


def _number_sessions() -> None:
    session = sa.table("session", sa.column("token_hash", sa.LargeBinary()), sa.column("id", sa.Text()))
    connection = op.get_bind()
    for (token_hash,) in connection.execute(sa.select(session.c.token_hash)).all():
        given = sa.update(session).where(session.c.token_hash == token_hash).values(id=secrets.token_hex(8))
        connection.execute(given)


def _code_printers() -> None:
    printer = sa.table(
        "printer", sa.column("id", sa.Text()), sa.column("organisation", sa.Text()), sa.column("code", sa.Text())
    )
    connection = op.get_bind()
    given: set[tuple[str, str]] = set()
    for printer_id, organisation in connection.execute(sa.select(printer.c.id, printer.c.organisation)).all():
        while (organisation, code := new_printer_code()) in given:
            pass
        given.add((organisation, code))
        connection.execute(sa.update(printer).where(printer.c.id == printer_id).values(code=code))
