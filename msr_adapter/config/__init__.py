"""Pipelines and protocols as data: from YAML to checked, frozen classes.

schema          the config classes, which list every key
loader          files, `extends:` and --set, merged and validated
yaml_tree       YAML that remembers where each value stands
yaml_scalars    its numbers, constants and texts, within what a file can hold
json_schema     the same as a JSON schema, for editors
error_messages  the classes in words: for errors and for docs/configuration.md
bundled         the files that travel with msr, and how a name finds its file
named_runs      which run folder a word means
output_paths    what `--out` may name
"""
