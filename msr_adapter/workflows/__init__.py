"""Commands that cross stages.

- `new_pipeline`: a pipeline for files that nobody has described yet
- `recommend`: ranked lists for users; `score_pairs`: a score beside every row of a table
- `summary_preview`: prompts and costs before anything is asked; `trained_run`: a run with its trained model
- `serve`: the trained model behind HTTP
- `embed`: items and users as vectors, in a table
- `export`, `model_card`: the trained model for others; `ablate`: what each part of the pipeline is worth
- `sweep`: settings searched for on validation users
- `get_model`: a pretrained model from a package of the registry
"""
