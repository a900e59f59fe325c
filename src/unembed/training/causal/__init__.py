"""Training the causal-LM family, both stages in one network: `unembed.training.causal.run.train(config)`."""
