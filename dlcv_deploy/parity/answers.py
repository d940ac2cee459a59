"""Logits that sessions answered with, kept chunk by chunk: what was computed once is not computed again."""

from __future__ import annotations

import dataclasses as dc
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..digest import digest
from ..store import Store
from .compare import Scores

if TYPE_CHECKING:
    from ..backends.base import Session

STAGE = "answers"
_FILE = "logits.npy"


@dc.dataclass(frozen=True, slots=True)
class Candidate:
    """What is held against the original: a session, or in words why there is none.

    ``previous`` names the candidate that it is one step further than, and is empty next to the original. ``identity``
    is a digest of all that its answers depend on besides its inputs; without one they are not kept.
    """

    session: Session | str
    previous: str = ""
    identity: str = ""


@dc.dataclass(frozen=True, slots=True)
class Kept:
    """Where answers are kept, and the ``original``'s identity, as a candidate's.

    Float32 logits take 4 bytes each: of 50,000 images, ten crops and 1,000 classes, 2 GB a session.
    """

    store: Store
    original: str


@dc.dataclass(frozen=True, slots=True)
class Chunk:
    """The images whose answers are kept together: logits (N x crops, K) that are ``known``, and those that come.

    ``known``, ``fresh`` and ``keys`` are by the session's name; what has no key is not kept.
    """

    images: range
    known: Mapping[str, Scores]
    keys: Mapping[str, str]
    fresh: dict[str, list[Scores]]

    @classmethod
    def look_up(cls, images: range, inputs: str, identities: Mapping[str, str], store: Store) -> Chunk:
        """What the store has of sessions, by their identities, for inputs of this digest."""
        keys = {name: digest(session=own, inputs=inputs) for name, own in identities.items()}
        found = {name: store.get(STAGE, key) for name, key in keys.items()}
        known = {name: np.load(io.BytesIO(files[_FILE]), allow_pickle=False) for name, files in found.items() if files}
        return cls(images, known, keys, {name: [] for name in keys.keys() - known.keys()})

    def keep(self, store: Store) -> None:
        """Keep what has come; NaN and infinity are not believed, and asked for anew each time.

        Raises:
            ArtifactError: The cache cannot be written.
        """
        for name, parts in self.fresh.items():
            logits = np.concatenate(parts)
            if np.isfinite(logits).all():
                file = io.BytesIO()
                np.save(file, logits, allow_pickle=False)
                store.put(STAGE, self.keys[name], {_FILE: file.getvalue()})
