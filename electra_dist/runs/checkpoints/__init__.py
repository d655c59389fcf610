"""The checkpoints of a run without torch: what lies in one, which there are, whether they are
whole, which may go.

    step-00001000/
        generator/rank-00000.safetensors       `weight/NAME`, `exp_avg/NAME`, `exp_avg_sq/NAME`:
                                               flat fp32 slices
        discriminator/rank-00000.safetensors   ... one file a rank and network
        trainer.json                           the trainer's own state
        config.yaml  run.json                  those of the run directory, as they were when this
                     was saved
        manifest.json                          size and SHA-256 of every file; for every parameter
                                               its shape and
                                               which file holds which slice of it; scalars of the
                                               optimizers; health
        COMPLETE                               SHA-256 of manifest.json; written last

`manifest` describes it, `members` writes and reads its files, `folders` gives it its name and
removes old ones, `listing` says what there is, `carried` reads back what it carries of the run
directory, `memory` is what the run remembers of its saving. Training writes and loads it with
`electra_dist.checkpoint.saving` and `.checkpoint`.

The folder may be another user's: only regular files inside it are read, never more of them than the
manifest says.
"""

from electra_dist.runs.checkpoints.carried import Carried, carried
from electra_dist.runs.checkpoints.folders import prune, recover, removable, saved_steps
from electra_dist.runs.checkpoints.listing import (
    CheckpointFacts,
    Health,
    SetAside,
    health,
    list_checkpoints,
    set_aside,
    verify_checkpoint,
)
from electra_dist.runs.checkpoints.manifest import CheckpointManifest, read_manifest
from electra_dist.runs.checkpoints.members import file_problems

__all__ = [
    "Carried",
    "CheckpointFacts",
    "CheckpointManifest",
    "Health",
    "SetAside",
    "carried",
    "file_problems",
    "folders",
    "health",
    "list_checkpoints",
    "listing",
    "manifest",
    "members",
    "memory",
    "prune",
    "read_manifest",
    "recover",
    "removable",
    "saved_steps",
    "set_aside",
    "verify_checkpoint",
]
