"""Experiment trackers: MLflow, Weights & Biases, TensorBoard.

A run puts what is to be sent into an outbox in its folder; another process, a tracker's client and all, sends what was
not sent yet. So a tracker that is down, slow or broken neither stops nor delays a run, and loses nothing.

outbox             what is to be sent, on disk, and what was sent of it
run_facts          what a run folder says: points of curves, metrics with intervals, settings as flat keys
trackers           the table of trackers
mlflow_tracker     an MLflow server
wandb_tracker      Weights & Biases
tensorboard_tracker  event files
delivery           sends what an outbox has and the tracker lacks, in this process
courier            starts deliveries beside a run, and waits for the last one
"""
