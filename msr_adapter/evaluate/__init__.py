"""Judge scorers on the test candidates: metrics with intervals, baselines on the same candidate lists.

`evaluation`: the evaluate stage; `metrics_file`: the content of `metrics.json`
`candidates`: the candidate lists of the test split, and scores that fit them row by row
`sampling`: what the targets were ranked among, in words
`model_metrics`: one model's metrics, the models side by side, and what a reader must know of them
`slices`: the metrics of parts of the users; `slice_groups`: who is in which part; `slice_tables`: parts by own tables
`beyond_accuracy`: calibration of the probabilities, and what of the catalogue is shown
`full_ranking`: what baselines and retrieve-and-rerank are worth over the whole catalogue
`catalogue_ranking`: places of targets in the whole catalogue, block by block; `retrieval`: its first items, reranked
`table_retrieval`: what the retrievers of `msr recommend` find there, and their recall
`results`: a finished run, read back; `comparison`: runs tested against each other; `ablation_table`: variants of one
`tables`: the stage's files of rows; `text_tables`: tables for a terminal, Markdown and LaTeX
`trec_ranx_export`: runs for trec_eval, pytrec_eval and ranx
`trainings`: several trainings of one model
`hybrid/`: one ranking of what several models say
`baselines/`: scorers that every trained model must be seen beside
"""
