"""The one place that knows LLaMA-Factory: its version, data format, training YAML, launch and prompt encoding.

Importing this package imports neither torch nor llamafactory; `encode` does so when an `Encoder` is built.
"""
