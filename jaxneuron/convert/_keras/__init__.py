"""Keras: models in memory, the files it writes, and the way back."""
