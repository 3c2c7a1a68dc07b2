"""The commands, one module for each noun.

Each module lists its commands in COMMANDS; the root adds them all.
"""
