"""The DAVAE family: a variational auto-encoder of texts with an adversarial latent."""
