"""Words that do not belong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from electra_dist.api.common import DeviceName, as_path
from electra_dist.errors import UserError

if TYPE_CHECKING:
    from electra_dist.suspects.findings import JudgedText


def find_suspects(
    discriminator: str | Path,
    texts: Sequence[str],
    *,
    generator: str | Path | None = None,
    threshold: float = 0.5,
    count: int = 5,
    device: DeviceName | None = None,
) -> list[JudgedText]:
    """The words of texts, with the probability that each does not belong where it stands.

    Args:
        discriminator: the folder of an exported discriminator.
        texts: of any length.
        generator: the folder of a generator, whose suggestions the suspects get; none without it.
        threshold: words from this probability on are suspects.
        count: suggestions per suspect.
        device: by default CUDA where there is one.

    Returns:
        Per text all its words with their places, and among them the suspects. A blank text has no
        words.

    Raises:
        UserError: no such network there, or an argument that cannot be.

    Examples:
        >>> (found,) = electra_dist.find_suspects("exported/discriminator", ["The cat sat no it."])
        >>> [(word.text, word.probability) for word in found.suspects]
    """
    from electra_dist.parallel.hardware import device_of_command
    from electra_dist.suspects.finding import Finder

    if isinstance(texts, str):
        raise UserError("`texts`: expected a list of texts, found one text")
    finder = Finder.open(
        Path(discriminator), as_path(generator), device_of_command(device), threshold, count
    )
    return list(finder.find(texts))
