"""What vectors give away, and what a defence buys."""
