"""The native family: one small network (`network`), how it writes (`generation`), its vocabulary (`tokenizer`), and all
of it behind the interface of every inverter (`model`)."""

from unembed.models.native.model import NativeModel
from unembed.models.native.network import NativeConfig, NativeNetwork

__all__ = ["NativeConfig", "NativeModel", "NativeNetwork"]
