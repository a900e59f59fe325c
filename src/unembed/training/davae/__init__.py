"""Training of the DAVAE family: the auto-encoder, and the map from an embedder's vectors to its latents."""
