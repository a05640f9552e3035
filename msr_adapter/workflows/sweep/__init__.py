"""`msr sweep`: settings searched for on validation users; test users are not looked at.

- `space`: which settings, among which values
- `search`: the trials, each a run folder as far as its training
- `outcome`: the table, the plot, the best trial as a pipeline

run_dir/sweeps/<space's name>/
  journal.log         Optuna's record of the trials
  trials/<digest>/    one run folder for each set of values; stages that come out equal are shared
  sweep.json, sweep.svg, best.yaml
"""
