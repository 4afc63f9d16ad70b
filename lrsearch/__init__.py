"""Which learning rate, and does it need decay? A tracked range test and search for PyTorch."""
