"""`msr score`: any table of users and items, with a score beside every row.

- `workflow`: the command from end to end; `request`: what is asked for
- `resolve_pairs`: who and what the rows name, and all that nobody knows; `inline_items`: items of no catalogue
- `pair_codes`: rows as numbers on disk, and the distinct pairs of a bucket of users; `scored_table`: the file
"""

from msr_adapter.workflows.score_pairs.request import PairsRequest

__all__ = ["PairsRequest"]
