"""PyTorch modules of the model families, with the parameter names that published checkpoints use."""
