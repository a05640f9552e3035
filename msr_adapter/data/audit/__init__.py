"""The audit of the data stage: what was dropped, and how good the log, the items and the test lists are.

report               the `Audit`: counts, and findings by severity
recognition          which column of which file was taken for what
thresholds           the table of findings, and from which value on each is made
checks               runs all checks; the layout of `audit.json`
audited_data         what the checks look at
ids                  ids in two forms, words for nothing, rounded numbers
log_statistics       sizes, degrees, histories, timestamps
leakage              what training, filters and lists know of later times; items that training never saw
repeats              how many targets their users had before
heuristic_baselines  what trivial scorers reach on the test lists
items                titles and images that are missing, repeated, or nearly so
candidate_lists      labels, and the position of the target
console_summary      what a user sees of it
"""
