"""Work on data from outside, in separate, unprivileged and confined processes; it must not import
anything of Mica but this package.

Each module is a program: `python -m vmkernel.workers.NAME POLICY JOB`, both JSON, with open
descriptors for what it reads and writes. It reports its progress and its result as JSON lines
(`report.py`), and ends with the process that started it.
"""
