"""The one place that knows LLaMA-Factory: its data format, training YAML, launch, checkpoints and prompt encoding.

Models
    families: the table of tested model families, with their limits
    family_recognition: which family a model is of, read from its files
    packaged_models: pretrained models that packages of the registry carry
    model_files: whether a folder's files are whole, and the guard round what loads them
    claimed_sizes: sizes in a config, compared with the headers of the weights before they cost memory
    template: LLaMA-Factory's template, tokenizer and image processor of a model
    prompt_encoder: prompts to tokens exactly as they are trained
    processed_images: images kept from counting their tokens until the model asks for them
    model_weights: where a model's files are, what identifies them, what was trained on top of it
    fitting_weights: no tensor of an adapter or a model is missing or left over
    merged_model: the trained model as one folder that needs no msr
Rows
    dataset: writing and reading training rows
    dataset_check: whether LLaMA-Factory's own loader reads them as they were written
    label_words: whether the tokenizer tells the answers apart
    token_counts: tokens of texts and images without loading a model
    row_lengths: the exact length of every row
    memory_estimate: how much memory and disk a training will take
What is trained
    objectives, finetuning_methods, parallelism: one table each of what is learned, of which weights, by which processes
    kernels: flash-attention and Liger, where they work and where they are refused
    device_defaults: precision, gradient checkpointing and logits, by what the device is good at
    training_yaml: the YAML that LLaMA-Factory reads
The trainer
    launcher: LLaMA-Factory as a subprocess, followed and believed only when the model is there
    nodes: which machine this is, and the command that starts its processes
    rendezvous: how the other machines find a training
    ray_launch: the same on a Ray cluster
    trainer_entrypoint, trainer_callbacks, literal_paths: run by path in the trainer's processes
    answer_logits: logits at the trained answers alone, there too
    checkpoints: which are whole, from which training goes on
    training_measurements: how long a training took, and how much memory
    failures: why a training failed
    versions: whether the right LLaMA-Factory is installed
    installed: its templates and arguments, read from its source without importing it

Importing any of them imports neither torch nor llamafactory; `template` does so when an `Encoder` is built.
"""
