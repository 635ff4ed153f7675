"""What a run folder is: the names of its files and the states of a run. Every room may use it; it imports nothing."""

from __future__ import annotations

CONFIG = "config.yaml"  # the whole resolved config, frozen when the folder is made
STATE = "state.json"  # the run's present state and progress
SUMMARY = "summary.json"  # final metrics; written last, so a folder that has it is complete
METRICS = "metrics.jsonl"  # append-only log, one row per evaluation or logging interval, keyed by step
PROVENANCE = "provenance.json"  # commit, fingerprints of code and data, packages, hardware
LOG = "log.txt"  # the output of the first process
CHECKPOINTS = "checkpoints"  # folder
WEIGHTS = "weights.safetensors"  # final weights, the averaged ones where the run averages
EXAMPLES = "examples.npz"  # arrays for pictures, where a task has any
RECORDS = "records.npz"  # per-image records of the final evaluation, where a task has any
CODE = "code.json"  # the frozen copy of the code that a sweep starts the run from
ATTEMPTS = "attempts.jsonl"  # the Slurm jobs that worked on the run
EXCLUSION = "excluded.json"  # why the run, or an earlier measurement of it, is left out of reports

EVALUATIONS = "evaluations"  # in the folder of run folders: what evaluate= found, a folder each

RUN_ID = r".+-s\d+-[0-9a-f]{8}"  # the form of a run's id: experiment, model, seed, hash; it names its folder

SHA256 = "sha256"  # in the summary: name → hash of files as they were when the run ended
INIT_SHA256 = "init_sha256"  # in the provenance: hash of the file of weights that the run started from

DONE = "done"
MEASURED = "measured"  # its results are in results/measured/, collected from a folder that need not exist any more
EXCLUDED = "excluded"  # left out of reports by a person, with a reason
FAILED = "failed"  # started and cannot finish, e.g. a non-finite loss; not retried by itself
REFUSED = "refused"  # could not start as configured and changed nothing; the next start tries again
RUNNING = "running"
INTERRUPTED = "interrupted"  # stopped with its state saved, or its process died; starting it again resumes it
QUEUED = "queued"  # waits for a scheduler to start it
CANCELLED = "cancelled"  # never started: its job was cancelled, or the run it starts from failed
NOT_RUN = "not run"
UNKNOWN = "unknown"  # a scheduler's state that this suite does not know; shown as it is, never guessed
UNREADABLE = "unreadable"  # files that contradict each other or cannot be read; never counted

# runs that start from a run in one of these states cannot be started
DEAD_ENDS = (FAILED, REFUSED, CANCELLED, EXCLUDED, UNREADABLE)
