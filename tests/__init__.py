"""The proof: one folder per package, helpers in `support`, whole runs in `integration`."""
