"""The channels to the software in a guest, which is never trusted.

agent.py its guest agent: facts, freezing file systems, the clock
serial_console.py  a serial line, its watchers and its one writer
replay.py          what a new watcher of a line is shown
"""
