"""One store, looked at from outside: what its vectors give away."""
