"""How the candidate lists of each split are made: the config's words, together with the items each kind draws from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from msr_adapter.config.models import Negatives, Protocol
from msr_adapter.data.audit import Audit, collecting, raise_if_any
from msr_adapter.data.corpus import Codes, Log
from msr_adapter.data.frozen import Candidates
from msr_adapter.data.hardlists import read_hard_lists
from msr_adapter.data.hashing import Bits, hash_ids, keyed, mix
from msr_adapter.data.pools import Knowledge, PoolOf, make_pools
from msr_adapter.data.split import Examples
from msr_adapter.errors import Problem, UserError


@dataclass(frozen=True)
class Recipe:
    """How the lists of one split are made."""

    setting: str
    """Where the config says it, for messages."""
    negatives: Negatives
    pools: Mapping[str, PoolOf] = field(default_factory=dict)
    """Kind -> what it draws from, for every kind that ``negatives`` names; `all` draws nothing."""


@dataclass(frozen=True)
class Draw:
    """Everything that decides the candidates."""

    log: Log
    examples: Examples
    recipes: tuple[Recipe, Recipe, Recipe]
    """Of the split codes 0, 1, 2."""
    seed: int
    imported: Candidates | None = None
    """Test lists that were read from a file and are not drawn."""


class ListKeys:
    """The key of a list: of the seed, the user's id and the target's id, and of nothing else."""

    def __init__(self, log: Log, seed: int) -> None:
        """Hash all ids. O(users + items)."""
        self._users = keyed(hash_ids(log.users), seed, "candidates")
        self._items = mix(hash_ids(log.items))

    def of(self, user: Codes, positive: Codes) -> Bits:
        """Return the keys of the lists of these users and targets."""
        return mix(self._users[user] ^ self._items[positive])


def make_recipes(
    protocol: Protocol, train: Negatives, log: Log, known: Knowledge, seed: int, audit: Audit
) -> tuple[Recipe, Recipe, Recipe]:
    """Prepare the lists of training, validation and test. `UserError` with every problem of scores and categories.

    Validation lists are made as test lists are, or as training lists where a test list is the whole catalogue.
    """
    problems: list[Problem] = []
    recipes = []
    for setting, negatives in (("train.negatives", train), ("evaluate.protocol.negatives", protocol.negatives)):
        with collecting(problems):
            recipes.append(_recipe(setting, negatives, log, known, seed, audit))
    raise_if_any(problems)
    training, test = recipes
    return training, training if protocol.negatives.kind == "all" else test, test


def _recipe(setting: str, negatives: Negatives, log: Log, known: Knowledge, seed: int, audit: Audit) -> Recipe:
    kinds = (*negatives.kinds(), *negatives.fallback)
    if "same-category" in kinds and known.category.null_count() == len(known.category):
        step = "Give the table of items a category, or draw another kind"
        found = "same-category, but the source has no item categories"
        raise UserError(Problem("", setting, found, "a source with a category column", step))
    hard = None
    if "hard" in kinds and negatives.scores is not None:
        hard = read_hard_lists(negatives.scores, log, negatives.pool, audit)
    return Recipe(setting, negatives, make_pools(negatives, known, hard, seed))
