"""Work on data from outside, in processes of their own, unprivileged and confined; it must not
import anything of Mica but this package.

Each module is a program: `python -m vmkernel.workers.NAME POLICY JOB`, both JSON, with open
descriptors for what it reads and writes. It tells its progress and its outcome by JSON lines
(`report.py`), and ends with the process that started it.
"""
