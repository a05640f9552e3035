"""The tiny base model that plays all three roles in the demo: how it is made, and (in `tiny/`) the model itself.

build: all of it, from nothing to the finished folder with its model card
model: the untrained network, its tokenizer and its image processor
lessons: what it is taught, made afresh for every batch
rule: the rule behind its user summaries
encode: lessons to tensors, as LLaMA-Factory's template would
teach: the supervised training
exam: how well it has learned, through the backend that every pipeline uses
"""
