"""The machine as this process may use it: CPUs, memory, locks between processes."""
