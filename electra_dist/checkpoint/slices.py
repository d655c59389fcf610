"""Which rank saves which slice of which parameter.

Comes in: the engines of a run. Goes out: the tensors of this rank's share, and for the manifest the
place of every slice. They are the same at every save, so the ranks exchange it once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from electra_dist.checkpoint.tensors import Tensors, share_name
from electra_dist.config import Network
from electra_dist.parallel.collectives import gather_objects
from electra_dist.parallel.world import World
from electra_dist.runs.checkpoints import manifest
from electra_dist.runs.checkpoints.manifest import ParameterEntry, Slice
from electra_dist.zero.engines import Engines
from electra_dist.zero.fragments import Fragment, local_fragments, own_share, parameter_shapes

_FP32 = 4
#: Moments and weight of each parameter.
_BYTES_PER_PARAMETER = 3 * _FP32

#: The parameters of each network, by name, and which file has which slice of them.
Entries = dict[Network, dict[str, ParameterEntry]]


class SavedSlices:
    """Where the state of the engines goes in a checkpoint."""

    def __init__(self, engines: Engines, world: World) -> None:
        self._engines = engines
        self._world = world
        self._entries: Entries | None = None

    @property
    def entries(self) -> Entries:
        """What the manifest says of the parameters; call `agree` before."""
        assert self._entries is not None, "the ranks have not agreed on the slices"
        return self._entries

    def agree(self) -> None:
        """Have all ranks know the slices of all; every rank must call it."""
        if self._entries is not None:
            return
        own = {
            network: [
                (f.name, share_name(network, self._world.rank), f.start, f.length)
                for f in fragments
            ]
            for network, fragments in self._fragments()
        }
        ranks = gather_objects(own, self._world)
        self._entries = {
            network: manifest.parameter_entries(
                parameter_shapes(engine),
                ((name, Slice(*where)) for rank in ranks for name, *where in rank[network]),
            )
            for network, engine in self._engines
        }

    def tensors(self) -> Tensors:
        """This rank's share, as views of what the engines hold."""
        return {
            network: {
                f"{kind}/{f.name}": tensor for f in fragments for kind, tensor in f.tensors.items()
            }
            for network, fragments in self._fragments()
        }

    def checkpoint_bytes(self) -> int:
        """Bytes of the weights and moments of all ranks."""
        shapes = (
            shape for _, engine in self._engines for shape in parameter_shapes(engine).values()
        )
        return _BYTES_PER_PARAMETER * sum(math.prod(shape) for shape in shapes)

    def _fragments(self) -> Iterator[tuple[Network, list[Fragment]]]:
        rank = self._world.rank
        world_size = self._world.world_size
        for network, engine in self._engines:
            yield network, own_share(local_fragments(engine, rank), engine, rank, world_size)
