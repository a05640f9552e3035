"""The hybrid: one ranking of what several models say, weighed on validation users and frozen before the test.

`regression`: the logistic regression and the choice of its penalty
`members`: what the models say of validation users, standardised within each list
`fitting`: the fit, the ablations, the file of weights, and what they make of scores
`judging`: what the frozen hybrid is worth on the test users, beside every model and without its parts
"""
