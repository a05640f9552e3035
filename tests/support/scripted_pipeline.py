"""A whole pipeline whose answers follow rules: seconds to run, nothing to load."""


def scripted(
    users: int = 12,
    fractions: str = "[0.5, 0.2, 0.3]",
    evaluate: str = "{protocol: next-item, baselines: [popularity]}",
) -> str:
    """Return its YAML, on a generated shop of 60 items."""
    return f"""\
name: scripted
data:
  source: {{kind: synthetic, users: {users}, items: 60}}
split: {{fractions: {fractions}}}
summarize:
  items: {{model: &model {{path: nobody, backend: scripted}}}}
  users: {{model: *model}}
train: {{model: *model}}
evaluate: {evaluate}
"""


SCRIPTED = scripted()
