"""The report: `report.html`, one self-contained page about a finished run. See `page.write_report`.

page            render the page: variables, sandbox, content security policy
report_context  what it is told about the run: configuration, folders, manifests, limits of its size
verdict         whether the trained model is better than the strongest baseline, in a sentence
sections        sentences and key numbers
tables          metrics by model, calibration, beyond accuracy, slices
figures         which plots there are, with titles and captions
curves          how each plot is drawn
svg             the look of each model; inline SVG in the page's own colours
data_quality    the data audit's statistics, and how the summaries turned out
training        the training's log and key numbers, and the checkpoint that was kept
cost            time, memory and model calls of each stage
user_sample     which users are shown, and the head of their ranked candidate lists
user_texts      what the models read of these users
user_explorer   the data of the interactive user explorer, packed
example_users   example users for paper and for browsers without scripts
thumbnails      item images within a budget of bytes
"""
