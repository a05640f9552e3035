"""Scorers that every trained model must be seen beside; each scores the very same candidates.

`catalogue`: the table of baselines
`simple`: those that are one pass over the tables, and the oracle
`whole_catalogue`: the same over every item, for full rankings
`collaborative`: item-kNN and matrix factorisation; `sasrec`: a small transformer over item ids
`training_log`: what a baseline learns from and what it is asked
`tuning`: their settings, chosen on validation users
`fitting`: the stage that fits those that need it, and what it wrote, read back
"""
