"""Defences beside each other: what each costs a search, and what it leaves to every attacker."""
