"""One candidate -> one request: by the words of the answers, or by the text that answers."""

from msr_adapter.candidate_rows import CandidateRow
from msr_adapter.config.schema import TrainConfig
from msr_adapter.generation.request import Image, Request


def ask(row: CandidateRow, train: TrainConfig, identity: str) -> Request:
    """Return the request to the model ``identity`` that scores a row: by the answers' words, or by its text."""
    if train.asks_text:
        return ask_text(row.prompt, row.images, row.answer, train, identity)
    return Request(identity, row.prompt, row.images, train.answers.trained, also=train.answers.also)


def ask_text(prompt: str, images: tuple[Image, ...], answer: str, train: TrainConfig, identity: str) -> Request:
    """Return the request for the likelihood of one text as the answer to a prompt."""
    return Request(identity, prompt, images, (answer,), whole="turn" if train.text_answer.end_of_turn else "answer")
