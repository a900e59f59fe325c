"""Sharper questions to a store: planted secrets, templates filled in, membership."""
