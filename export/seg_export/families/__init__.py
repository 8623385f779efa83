"""What is particular to each model family, one folder each."""
