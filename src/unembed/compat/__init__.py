"""The interfaces of other programs on top of unembed, so that what was written for them runs unchanged."""
