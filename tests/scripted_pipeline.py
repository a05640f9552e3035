"""A whole pipeline whose answers follow rules: seconds to run, nothing to load."""

SCRIPTED = """\
name: scripted
data:
  source: {kind: shop, users: 12, items: 60}
split: {fractions: [0.5, 0.2, 0.3]}
summarize:
  items: {model: &model {path: nobody, backend: scripted}}
  users: {model: *model}
train: {model: *model}
evaluate: {protocol: next-item, baselines: [popularity]}
"""
