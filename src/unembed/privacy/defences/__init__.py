"""Changes to vectors before they are stored, so that less can be read out of them. One file each; see `base`."""

from __future__ import annotations

from unembed.privacy.defences.base import CLEAN, DEFENCES, Defence, defence

__all__ = ["CLEAN", "DEFENCES", "Defence", "defence"]
