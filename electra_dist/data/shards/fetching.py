"""Blocks of remote shards: from the cache of this node, where there is one, else from the store.

What comes from either is checked like a local block. A damaged entry of the cache is removed, and
the block fetched again; what the store gives twice in a damaged state is damaged there.
"""

from __future__ import annotations

from electra_dist.console import warn
from electra_dist.data.shards.blocks import Block, BlockSize, DamageError
from electra_dist.data.shards.checking import Entry, block_name, block_size, checked_block
from electra_dist.data.shards.facts import ShardFacts
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.shards.stores.cache import BlockCache
from electra_dist.data.shards.stores.remote import Remote


class RemoteBlocks:
    """Reads blocks of `manifest`, whose shards lie at `remote`."""

    def __init__(self, manifest: Manifest, remote: Remote) -> None:
        self._manifest = manifest
        self._remote = remote
        self._cache: BlockCache | None = None
        if remote.cache.bytes:
            most = manifest.facts.block_tokens
            largest = BlockSize(most, most, manifest.token_dtype).most_bytes
            self._cache = BlockCache(remote.cache.folder, remote.cache.bytes, largest)
        self._dataset = manifest.fingerprint[:16]

    def read(self, shard: ShardFacts, inside: int, entry: Entry) -> Block:
        """Block `inside` of a shard, checked.

        Raises `DamageError`, `DataError` where it cannot be fetched, `StorageError` where the
        cache cannot be written.
        """
        size = block_size(self._manifest, shard, entry).most_bytes
        if self._cache is None:
            return self._fetch(shard, inside, entry, size)[1]
        name = f"{self._dataset}-{block_name(shard.tar.name.removesuffix('.tar'), inside)}"
        kept = self._cache.read(name, size)
        if kept is not None:
            try:
                return checked_block(kept, shard, inside, entry, self._manifest)
            except DamageError as error:
                warn(f"{name} in the cache of remote shards is damaged ({error}); fetched again")
                self._cache.remove(name)
        content, block = self._fetch(shard, inside, entry, size)
        self._cache.write(name, content)
        return block

    def _fetch(
        self, shard: ShardFacts, inside: int, entry: Entry, size: int
    ) -> tuple[bytes, Block]:
        """The bytes and the block; what is damaged is asked for once more."""
        try:
            return self._fetch_once(shard, inside, entry, size)
        except DamageError:
            return self._fetch_once(shard, inside, entry, size)

    def _fetch_once(
        self, shard: ShardFacts, inside: int, entry: Entry, size: int
    ) -> tuple[bytes, Block]:
        content = self._remote.read(shard.tar.name, entry.offset, size)
        return content, checked_block(content, shard, inside, entry, self._manifest)
