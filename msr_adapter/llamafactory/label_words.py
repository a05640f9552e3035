"""Can a model's tokenizer tell the answers apart? Asked of its own file, before anything is loaded."""

from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import Problem
from msr_adapter.llamafactory.family_recognition import model_file


def check_label_words(train: TrainConfig) -> list[Problem]:
    """Return a problem if label words of both sides have the same token where the words first differ.

    The prompt encoder says the same of whole rows, as its template writes them; where the tokenizer's file is not on
    this machine, or is no ``tokenizer.json``, it alone does. Loads no weights and no torch.
    """
    path = model_file(train.model, "tokenizer.json")
    if path is None or train.asks_text or not train.model.backend_row.local:
        return []
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception:  # the library raises nothing more special; a damaged file is told as one by `folder_faults`
        return []
    sides = {side: {word: tokenizer.encode(word, add_special_tokens=False).ids for word in words}
             for side, words in (("yes", train.answers.yes), ("no", train.answers.no))}  # fmt: skip
    rows = [row for side in sides.values() for row in side.values()]
    if not all(rows):
        return []
    places = range(min(map(len, rows)))
    place = next((place for place in places if len({row[place] for row in rows}) > 1), len(places) - 1)
    yes, no = ({row[place]: word for word, row in side.items()} for side in sides.values())
    if not (shared := yes.keys() & no.keys()):
        return []
    token = next(iter(shared))
    found = f"{yes[token]!r} and {no[token]!r} begin with the same token of {train.model.path}"
    step = "Choose answers whose first tokens differ"
    return [Problem("", "train.answers", found, "words that differ in their first token", step)]
