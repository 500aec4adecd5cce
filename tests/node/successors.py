"""Neighbours that make new generations of holders, over the same wire; and the cloud that orders it, which is the
test's own."""

import asyncio
import shutil
import uuid
from pathlib import Path
from typing import Any

from tests.node.host import ORGANISATION, Organisation
from tests.node.neighbours import Away, Neighbour, Wire

from pullprint.base.errors import NotFound
from pullprint.node import generation_author, generation_voter
from pullprint.node.generation_author import GenerationAuthor
from pullprint.node.generation_voter import GenerationVoter
from pullprint.vault import parts
from pullprint.vault.index import Index
from pullprint.vault.record import Record
from pullprint.vault.sealing import Party
from pullprint.wire.holders import Accept, Close, HoldersOrder, Opening, sign_holders_order
from pullprint.wire.mesh import Installation
from pullprint.wire.node import CLOUD, HoldersItem
from pullprint.wire.types import Message

OFFER = "/mesh/v1/copies"


class Died(Exception):
    """The process of a host ended where a label stood."""


class SuccessorWire(Wire):
    """Carries also what new generations are made with."""

    async def carry(self, sender: str, receiver: str, path: str, message: Message) -> Message | None:
        if not isinstance(message, Close | Accept | Opening):
            return await super().carry(sender, receiver, path, message)
        await self._reach(sender, receiver, path)
        host = self.hosts[receiver]
        assert isinstance(host, Successor)
        self.heard.append((sender, receiver, path))
        raw = message.model_dump_json()
        answer: Message | None = None
        try:
            match message:
                case Close():
                    answer = await host.generations.close(sender, Close.model_validate_json(raw))
                case Accept():
                    answer = await host.generations.accept(sender, Accept.model_validate_json(raw))
                case Opening():
                    await host.generations.open(sender, Opening.model_validate_json(raw))
        except Died as error:
            self.down.add(receiver)
            raise Away from error
        await self._reach(receiver, sender, path + "!")
        return answer


class _Line:
    def __init__(self, wire: SuccessorWire, own: str) -> None:
        self._wire = wire
        self._own = own

    async def ask(self, node: str, path: str, message: Message, answer: type[Any], timeout: float = 3.0) -> Any:
        said = await self._wire.carry(self._own, node, path, message)
        assert said is not None
        return answer.model_validate_json(said.model_dump_json())

    async def tell(self, node: str, path: str, message: Message, timeout: float = 3.0) -> None:
        await self._wire.carry(self._own, node, path, message)


class Successor(Neighbour):
    """A host that takes part in new generations."""

    def __init__(self, root: Path, organisation: Organisation, printers: dict[str, str], wire: SuccessorWire) -> None:
        super().__init__(root, organisation, printers, wire)
        self._line = _Line(wire, self.identity.node)
        self._telling: asyncio.Task[None] | None = None
        self.forget()

    @property
    def node(self) -> str:
        return self.identity.node

    def forget(self) -> None:
        """What is in memory only."""

        def names(node: str) -> str:
            return self.wire.hosts[node].name if node in self.wire.hosts else "another host"

        self.generations = GenerationVoter(
            self.holder, self.site, self.identity, self.clock, names, self.arrived, self.taken
        )
        self.author = GenerationAuthor(self.holder, self.site, self.identity, self.clock, self.generations, self.bring)

    async def taken(self, job: str) -> None:
        pass

    def arrived(self, job: str) -> Path:
        return self.holder.directory / f".{job}.copy"

    async def start(self) -> None:
        await super().start()
        await self.tell()

    async def tell(self) -> None:
        self._telling = asyncio.create_task(self.author.run(self._line), name="author")
        await asyncio.sleep(0)

    async def quiet(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
            self._telling = None

    async def restart(self) -> None:
        """As after a crash: nothing but the disk is left."""
        await self.quiet()
        self.forget()
        self.wire.down.discard(self.node)
        await self.tell()

    async def stop(self) -> None:
        await self.quiet()
        await super().stop()

    async def bring(self, node: str, record: Record) -> Party | None:
        """What `Placement` does: the sealed file goes there."""
        try:
            await self.wire._reach(self.node, node, OFFER)
        except Away:
            return None
        host = self.wire.hosts[node]
        assert isinstance(host, Successor)
        if not host.holder.path(record.id).exists():
            await asyncio.to_thread(shutil.copy, self.holder.path(record.id), host.arrived(record.id))
        try:
            await self.wire._reach(node, self.node, OFFER + "!")
        except Away:
            return None
        key = await asyncio.to_thread(host.keyring.current, self.clock.now())
        return Party(node, key.key, key.public)

    async def place(self, record: Record, data_key: bytes, *others: Neighbour) -> Record:
        placed = await super().place(record, data_key, *others)
        token = await self.holder.read(Index.key_table, placed.id)
        kept = Installation(table=token, expires=placed.expires).model_dump_json()
        for host in (self, *others):
            host.holder.keys_path(placed.id).write_text(kept)
        return placed

    async def about(self, job: str) -> Record | None:
        try:
            return await self.record(job)
        except NotFound:
            return None

    async def replace(
        self, record: Record, number: int, out: "tuple[Successor, ...]" = (), candidates: "tuple[Successor, ...]" = (),
        **changes: Any,
    ) -> None:  # fmt: skip
        """Carry out what the cloud would order this host, of the generation that *record* is of."""
        await self.author.take(self.holders_item(record, number, out, candidates, **changes))

    def holders_item(
        self, record: Record, number: int, out: "tuple[Successor, ...]" = (), candidates: "tuple[Successor, ...]" = (),
        **changes: Any,
    ) -> HoldersItem:  # fmt: skip
        now = int(self.clock.now())
        claims: dict[str, Any] = {
            "jti": uuid.uuid4().hex, "iss": ORGANISATION, "aud": self.node, "iat": now, "exp": now + 600,
            "job": record.id, "base": record.generation, "number": number, "out": tuple(host.node for host in out),
            "candidates": tuple(host.node for host in candidates), "wanted": max(1, len(out)),
        }  # fmt: skip
        order = HoldersOrder(**{**claims, **changes})
        part = parts.open_part(
            record.cloud_slot, self.organisation.private, job=record.id, party=CLOUD, key=self.organisation.party.key,
            generation=record.generation,
        )  # fmt: skip
        ours = self.keyring.current(now)
        sealed = parts.seal_for_release(part, ours.public, job=record.id, order=order.jti, key=ours.key)
        return HoldersItem(order=sign_holders_order(order, self.organisation.key), part=sealed, part_key=ours.key)


class Fate:
    """Ends a host at the *left*-th label that any of them comes to; with *at*, of those that are called that."""

    LABELS = frozenset(
        {"closed", "accepted", "newcomers", "proposed", "decided", "generation-keys", "generation-renamed",
         "generation-opened", "left"}
    )  # fmt: skip

    def __init__(self, monkeypatch: Any) -> None:
        self.left = -1
        self.at = ""
        self.seen: list[str] = []
        monkeypatch.setattr(generation_voter, "checkpoint", self)
        monkeypatch.setattr(generation_author, "checkpoint", self)

    def __call__(self, label: str) -> None:
        if label not in self.LABELS:
            return
        self.seen.append(label)
        if self.at and label != self.at:
            return
        self.left -= 1
        if self.left == 0:
            raise Died(label)
