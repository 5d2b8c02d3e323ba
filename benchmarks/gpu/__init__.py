"""Everything there is to learn from one GPU, as one command with a time limit: `python -m benchmarks.gpu`.

`__main__` parses the command line, `runner` runs the steps in order, each in a process of its own, and `report` writes
`RESULTS.md` and `results.json`. The steps are in `trainings` (whole runs of `train.py` and `predict.py`) and `floors`
(single training steps); `probes` has the callbacks that they give to `train.py`.
"""
