"""Owns what leaves the host as syslog: its format and transport; must not decide what is logged.

message.py RFC 5424 messages for log lines and events
target.py      where they go: `udp://host:port` or `tcp://host:port`
forwarder.py   a bounded queue, and the task that sends it on and connects again
feed.py        what goes in: the journal's lines and the vmkernel's events

Nothing is imported here: most hosts have no collector, and then only `target` is needed.
"""
