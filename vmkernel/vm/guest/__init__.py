"""The channels to the software in a guest, which nothing here trusts.

agent.py           its guest agent: facts, quiet file systems, the clock
serial_console.py  a serial line, its watchers and its one writer
replay.py          what a new watcher of a line is shown
"""
