"""The command line: parses, calls the pipeline and the workflows, prints. Starts without torch, which stages import.

One file per command, named like it:
init          a pipeline for files of one's own
run           the whole experiment
build_data    splits, candidate lists, summaries, the LLaMA-Factory dataset
summarize     item and user summaries; --preview, --dry-run
train         the fine-tuning; --dry-run
evaluate      scores, metrics, report
ablate        what each part of the method is worth
sweep         settings searched for on validation users
compare       finished runs, paired on the same users
results       a finished run's numbers for papers and other tools
recommend     top-k lists for users
score         a score beside every row of a table of pairs
serve         the trained model behind HTTP
embed         items and users as vectors
export        the trained model as a folder for others
candidates    the candidate lists as a file
fetch_images  downloads of the items' images
check         every problem that can be known beforehand
doctor        what this machine has and lacks
ls, cp        the bundled pipelines, protocols and templates
schema        the JSON schema of pipelines and protocols, for editors
constraints   the exact versions that were tested
demo_model    the demo's tiny model, made again
get_model     a small pretrained model from a package
cache         what the completion caches hold
prune         what costly stages made under other settings
track         what an experiment tracker lacks of a run
run_list      msr runs: state, age, size and primary metric of each run

common        options, exit codes, how results and tables are printed
signals       SIGTERM and SIGHUP, which end a command as Ctrl-C does
streams       standard output and error that may be closed
completion    what the shell completes
runs          which run is meant, and how its stages are brought up to date
app           registers the commands
"""

from msr_adapter.cli.app import app, main

__all__ = ["app", "main"]
