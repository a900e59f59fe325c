"""The inversion loop: propose texts for a vector, embed them again, keep and correct the best."""
