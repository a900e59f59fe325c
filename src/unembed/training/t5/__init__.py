"""Training the encoder-decoder family, both stages of vec2text and nanoV2T: `unembed.training.t5.run.train(config)`."""
