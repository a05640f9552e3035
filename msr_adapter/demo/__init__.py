"""The tiny base model that plays all three roles in the demo: how it is made, and (in `tiny/`) the model itself."""
