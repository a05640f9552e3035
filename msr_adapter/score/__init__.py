"""Candidates to p(yes), or to log-likelihood ratios: the test split's for the record, the validation split's to choose
a checkpoint by.

scoring             the score stage, block by block
likelihood_ratios   scores of a question that a text answers
alone_weights       how much of a text's own likelihood is taken off, and what validation users say of it
answer_stream       a block's answers, asked in order through the cache
scoring_order       the order in which neighbouring candidates share most
pairs               any users and items in memory
scoring_counts      what is counted, and what of it a reader should know
weighing_users      the validation users on whom a hybrid weighs the model
validation_ranking  how well a checkpoint ranks the validation users' candidates
"""

from msr_adapter.score.pairs import PairsInMemory, score_pairs
from msr_adapter.score.scoring import score, scores_of
from msr_adapter.score.validation_ranking import Validation

__all__ = ["PairsInMemory", "Validation", "score", "score_pairs", "scores_of"]
