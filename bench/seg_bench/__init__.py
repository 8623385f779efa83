"""edgeseg's bench: data sets, metrics, the training recipe, and the Dice / latency table."""
