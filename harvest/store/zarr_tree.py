"""A verified tree as Zarr reads it: what is missing or changed raises, where Zarr would show the fill value."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from harvest.store.verified import Tree


class TreeStore(Store):
    """Read-only. The record says which files there are, so a listing asks nobody."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, tree: Tree) -> None:
        super().__init__(read_only=True)
        self.tree = tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TreeStore) and str(other.tree) == str(self.tree)

    def __hash__(self) -> int:
        return hash(str(self.tree))

    def __str__(self) -> str:
        return str(self.tree)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if key not in self.tree.files:
            return None
        return prototype.buffer.from_bytes(await asyncio.to_thread(self._read, key, byte_range))

    def _read(self, key: str, asked: ByteRequest | None) -> bytes:
        size = self.tree.files[key].size_bytes
        match asked:
            case None:
                return self.tree.read(key)
            case RangeByteRequest(start, stop):
                return self.tree.read_range(key, start, min(stop, size))
            case OffsetByteRequest(start):
                return self.tree.read_range(key, start, size)
            case SuffixByteRequest(length):
                return self.tree.read_range(key, max(0, size - length), size)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, asked) for key, asked in key_ranges)))

    async def exists(self, key: str) -> bool:
        return key in self.tree.files

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError("a view is never changed")

    async def delete(self, key: str) -> None:
        raise NotImplementedError("a view is never changed")

    async def list(self) -> AsyncIterator[str]:
        for name in self.tree.files:
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for name in self.tree.files:
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        start = f"{prefix.rstrip('/')}/".lstrip("/")
        for name in dict.fromkeys(
            one.removeprefix(start).partition("/")[0] for one in self.tree.files if one.startswith(start)
        ):
            yield name
