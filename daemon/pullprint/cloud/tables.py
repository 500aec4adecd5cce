"""The cloud's tables. Every row belongs to one organisation, and most keys begin with it.

Times are seconds since the epoch, UTC. Structured values (tickets, facts, networks) are JSON text that `wire` or
`model` types read and write. Changing anything here takes a migration in ``migrations/versions``.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

organisation = Table(
    "organisation",
    metadata,
    Column("id", Text, primary_key=True),  # the short name, such as ``acme``
    Column("name", Text, nullable=False),
    Column("order_key", LargeBinary, nullable=False),  # raw Ed25519 private key: signs orders and configurations
    Column("ca_key", Text, nullable=False),  # PEM, ECDSA P-256: issues the nodes' certificates
    Column("ca_certificate", Text, nullable=False),
    # Counts changes made by commands, beside a running server: see bus.py.
    Column("changes", BigInteger, nullable=False, default=0),
    Column("created", Double, nullable=False),
)

site = Table(
    "site",
    metadata,
    Column("organisation", Text, ForeignKey("organisation.id"), primary_key=True),
    Column("id", Text, primary_key=True),
    Column("networks", Text, nullable=False),  # JSON list of CIDR
    Column("owner_rule", Text, nullable=False),
    Column("hold", BigInteger, nullable=False),  # seconds
    Column("revision", BigInteger, nullable=False, default=1),
    Column("created", Double, nullable=False),
)

user_account = Table(
    "user_account",
    metadata,
    Column("organisation", Text, ForeignKey("organisation.id"), primary_key=True),
    Column("name", Text, primary_key=True),  # lower case
    Column("password", Text, nullable=False),  # argon2id, in its own encoding; empty until its owner has chosen one
    Column("jobs_version", BigInteger, nullable=False, default=1),  # of the job list that its owner waits on
    Column("created", Double, nullable=False),
    Index(None, "name"),
)

session = Table(
    "session",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),  # SHA-256
    Column("organisation", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("used", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("id", Text, nullable=False, default=""),  # for its user's list; no secret
    Column("name", Text, nullable=False, default=""),  # browser and system, for people
    Column("remember", Boolean, nullable=False, default=False),
    ForeignKeyConstraint(
        ["organisation", "user"], ["user_account.organisation", "user_account.name"], ondelete="CASCADE"
    ),
    Index(None, "expires"),
    Index(None, "organisation", "user"),
)

invitation = Table(  # links with which users choose a password
    "invitation",
    metadata,
    Column("organisation", Text, primary_key=True),
    Column("user", Text, primary_key=True),
    Column("token_hash", LargeBinary, nullable=False),  # SHA-256
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    ForeignKeyConstraint(
        ["organisation", "user"], ["user_account.organisation", "user_account.name"], ondelete="CASCADE"
    ),
    UniqueConstraint("token_hash"),
    Index(None, "expires"),
)

account = Table(  # local accounts of nodes that users said are theirs
    "account",
    metadata,
    Column("node", Text, ForeignKey("node.id"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("organisation", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("created", Double, nullable=False),
    ForeignKeyConstraint(
        ["organisation", "user"], ["user_account.organisation", "user_account.name"], ondelete="CASCADE"
    ),
    Index(None, "organisation", "user"),
)

login = Table(  # device codes (RFC 8628) that wait for an answer
    "login",
    metadata,
    Column("device_hash", LargeBinary, primary_key=True),  # SHA-256
    Column("organisation", Text, nullable=False),
    Column("user_hash", LargeBinary, nullable=False),  # SHA-256 of the code that a person types
    Column("node", Text, ForeignKey("node.id"), nullable=False),
    Column("account", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("interval", BigInteger, nullable=False),  # seconds
    Column("polled", Double, nullable=False),
    Column("answer", Text, nullable=False, default=""),  # ``allowed`` or ``denied``
    Column("user", Text, nullable=False, default=""),
    UniqueConstraint("organisation", "user_hash"),
    Index(None, "expires"),
)

join_code = Table(
    "join_code",
    metadata,
    Column("code_hash", LargeBinary, primary_key=True),  # SHA-256
    Column("organisation", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("managed", Boolean, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("node", Text, nullable=False, default=""),  # who used it
    ForeignKeyConstraint(["organisation", "site"], ["site.organisation", "site.id"]),
)

node = Table(
    "node",
    metadata,
    Column("id", Text, primary_key=True),  # of the whole cloud: it follows from the key
    Column("organisation", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("identity", LargeBinary, nullable=False),  # raw Ed25519 public key
    Column("managed", Boolean, nullable=False),  # the organisation vouches for its local accounts
    Column("key_id", Text, nullable=False),
    Column("key_public", LargeBinary, nullable=False),  # raw X25519: key parts for it are sealed to this
    Column("key_expires", Double, nullable=False),
    Column("version", Text, nullable=False),
    Column("joined", Double, nullable=False),
    Column("seen", Double, nullable=False),
    Column("revoked", Double, nullable=True),
    Column("epoch", Text, nullable=False, default=""),
    Column("last_event", BigInteger, nullable=False, default=0),
    Column("inbox_seq", BigInteger, nullable=False, default=0),
    Column("role", Text, nullable=False, default="normal"),  # a word of model.placement.Role
    Column("endpoints", Text, nullable=False, default="[]"),  # JSON list of wire.mesh.Endpoint
    Column("room", BigInteger, nullable=False, default=0),  # bytes that it would still store for others
    ForeignKeyConstraint(["organisation", "site"], ["site.organisation", "site.id"]),
    Index(None, "organisation", "site"),
)

nonce = Table(
    "nonce",
    metadata,
    Column("node", Text, primary_key=True),
    Column("nonce", Text, primary_key=True),
    Column("used", Double, nullable=False),
    Index(None, "used"),
)

party_key = Table(
    "party_key",
    metadata,
    Column("organisation", Text, ForeignKey("organisation.id"), primary_key=True),
    Column("id", Text, primary_key=True),
    Column("private", LargeBinary, nullable=False),  # raw X25519
    Column("public", LargeBinary, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
)

printer = Table(
    "printer",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organisation", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("uri", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("code", Text, nullable=False),  # short, to type
    Column("ready", Boolean, nullable=True),
    Column("trouble", Text, nullable=False, default=""),
    Column("can", Text, nullable=False, default=""),  # JSON of wire.views.CapabilitiesView
    Column("asked", Double, nullable=True),  # when a node told of it
    Column("asked_by", Text, nullable=False, default=""),  # which node
    ForeignKeyConstraint(["organisation", "site"], ["site.organisation", "site.id"]),
    UniqueConstraint("organisation", "site", "name"),
    UniqueConstraint("organisation", "code"),
)

job = Table(
    "job",
    metadata,
    Column("organisation", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("site", Text, nullable=False),
    Column("node", Text, ForeignKey("node.id"), nullable=False),  # where it came from
    Column("job_uuid", Text, nullable=False),
    Column("cups_job_id", BigInteger, nullable=False),
    Column("queue", Text, nullable=False),
    Column("owner", Text, nullable=False),  # a user's name, or empty
    Column("submitter", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("ticket", Text, nullable=False),
    Column("facts", Text, nullable=False),  # empty until counted
    Column("state", Text, nullable=False),  # a holder's word, see model.states
    # The ballot of the attempt that the state is of: what is said of earlier ones does not change it.
    Column("state_ballot", BigInteger, nullable=False, default=0),
    Column("sentence", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("ended", Double, nullable=True),
    Column("cancelling", Double, nullable=True),  # its owner deleted it; the holders have yet to
    Column("direct_printer", Text, nullable=False),
    Column("claim_hash", LargeBinary, nullable=True),  # SHA-256; None once it has an owner
    Column("generation", BigInteger, nullable=False),
    Column("cloud_key", Text, nullable=False),
    Column("cloud_slot", LargeBinary, nullable=False),  # empty once the job has ended
    Column("ballot", BigInteger, nullable=False, default=0),  # the last one used
    Column("steps", BigInteger, nullable=False, default=0),  # the cloud's own steps of the trace
    Column("pages", BigInteger, nullable=True),  # that came out, as the printer counted
    Column("printer_name", Text, nullable=False, default=""),  # where it was last released to
    Column("trouble", Boolean, nullable=False, default=False),  # the last attempt came to nothing
    Column("picture", LargeBinary, nullable=True),  # sealed; its key is on the holders
    ForeignKeyConstraint(["organisation", "site"], ["site.organisation", "site.id"]),
    Index(None, "organisation", "owner", "created"),
    Index(None, "organisation", "owner", "ended", "id"),
    Index(None, "organisation", "claim_hash"),
    Index(None, "organisation", "cloud_key"),
    Index(None, "node", "ended"),
    Index(None, "ended", "expires"),
)

holder = Table(
    "holder",
    metadata,
    Column("organisation", Text, primary_key=True),
    Column("job", Text, primary_key=True),
    Column("node", Text, ForeignKey("node.id"), primary_key=True),
    Column("voter", Boolean, nullable=False),
    Column("missing", Double, nullable=True),  # since when the node's list has been without the job
    ForeignKeyConstraint(["organisation", "job"], ["job.organisation", "job.id"], ondelete="CASCADE"),
    Index(None, "node"),
)

loan = Table(  # votes that nodes lent to the cloud when they went to sleep; see loans.py
    "loan",
    metadata,
    Column("organisation", Text, primary_key=True),
    Column("job", Text, primary_key=True),
    Column("node", Text, ForeignKey("node.id"), primary_key=True),  # whose vote it is
    Column("number", BigInteger, nullable=False),  # of the last loan that is known
    Column("generation", BigInteger, nullable=False),  # of the job's voters; numbers begin anew in each
    Column("vote", Text, nullable=False),  # JSON of wire.mesh.Vote; empty: the loan was over before it arrived
    Column("over", Boolean, nullable=False),  # the cloud votes with it no more
    ForeignKeyConstraint(["organisation", "job"], ["job.organisation", "job.id"], ondelete="CASCADE"),
    Index(None, "node"),
)

release = Table(
    "release",
    metadata,
    Column("organisation", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # the order's jti
    Column("job", Text, nullable=False),
    Column("ballot", BigInteger, nullable=False),
    Column("printer", Text, nullable=False),
    Column("printer_name", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("ticket", Text, nullable=False),
    Column("forces", Text, nullable=False),  # JSON list of ballots
    Column("issued", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("outcome", Text, nullable=False, default=""),  # a state, or a word of orders.py; empty while under way
    Column("acknowledged", Double, nullable=True),  # when the releaser was first heard on it
    Column("due", Double, nullable=True),  # when it is to be looked at: another holder may have to take over
    Column("wished", Double, nullable=False, default=0),  # when its owner asked for it, of whichever holder
    Column("tried", Text, nullable=False, default="[]"),  # JSON list of the nodes that had the order, this one included
    Column("inbox_seq", BigInteger, nullable=True),  # its item in the inbox of its node
    ForeignKeyConstraint(["organisation", "job"], ["job.organisation", "job.id"], ondelete="CASCADE"),
    UniqueConstraint("organisation", "job", "ballot"),
    Index(None, "due"),
)

replacement = Table(  # jobs that were to have other holders, and the last order for it
    "replacement",
    metadata,
    Column("organisation", Text, primary_key=True),
    Column("job", Text, primary_key=True),
    Column("site", Text, nullable=False),
    Column("node", Text, nullable=False),  # who was ordered
    Column("base", BigInteger, nullable=False),  # the generation that was to end
    Column("number", BigInteger, nullable=False),  # each order for a job has a higher one
    Column("ordered", Double, nullable=False),
    ForeignKeyConstraint(["organisation", "job"], ["job.organisation", "job.id"], ondelete="CASCADE"),
    Index(None, "organisation", "site", "ordered"),
)

trace = Table(
    "trace",
    metadata,
    Column("organisation", Text, primary_key=True),
    Column("job", Text, primary_key=True),
    Column("source", Text, primary_key=True),  # a node's id, or ``cloud``: each counts its own steps
    Column("seq", BigInteger, primary_key=True),
    Column("at", Double, nullable=False),
    Column("host", Text, nullable=False),  # the node's name at that time
    Column("event", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("detail", Text, nullable=False),
    ForeignKeyConstraint(["organisation", "job"], ["job.organisation", "job.id"], ondelete="CASCADE"),
)

inbox = Table(
    "inbox",
    metadata,
    Column("node", Text, ForeignKey("node.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("item", Text, nullable=False),  # JSON of a wire.node item, without its seq
    Column("expires", Double, nullable=True),
    Index(None, "expires"),
)

throttle = Table(
    "throttle",
    metadata,
    Column("key", LargeBinary, primary_key=True),  # SHA-256 of what is throttled
    Column("started", Double, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Index(None, "started"),
)
