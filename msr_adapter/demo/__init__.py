"""The tiny base model that plays all three roles in the demo: how it is made, and (in `tiny/`) the model itself.

build: all of it, from nothing to the finished folder with its model card
model: the untrained network, its tokenizer and its image processor
training_examples: what it is taught, made afresh for every batch
summary_rule: the rule behind its user summaries
tokenize_examples: lessons to tensors, as LLaMA-Factory's template would
training_loop: the supervised training
quality_check: how well it has learned, through the backend that every pipeline uses
"""
