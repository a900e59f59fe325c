"""Training an inverter for an embedder: `unembed.training.train(TrainConfig(...))`."""
