"""vLLM as a back end, in the process of a worker: its engine, the trial that it has to pass, and adapters.

backend    requests in, answers out; what an engine adds to the identity of a model
engine     one `vllm.LLM`: how it is started, asked, and what it says when it dies
images     images as training shrinks them, kept while requests show them
trial      some prompts of the run, answered by transformers first: an engine that answers otherwise is refused
adapters   trained adapters: vLLM's own LoRA where it can apply them, else merged once into a folder that is kept
installed  whether vLLM is here, in which version, and which back end `auto` stands for

Nothing of vLLM is imported before an engine is started.
"""
