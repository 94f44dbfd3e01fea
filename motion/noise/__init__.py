"""The noise that a clip starts from: which frames share it (FreeNoise), and how it is made better (FreeInit)."""
