"""Owns the measurements of the built image; they judge nothing, and no test depends on them.

Each writes one file `build/bench/<name>.json`: the commit, the machine, and for each figure n,
median, minimum, maximum and the values. What is compared is measured in turn in one run, so that
the ratio counts where absolute times don't. MICA_BENCH_N is how often (3 by default).
"""
