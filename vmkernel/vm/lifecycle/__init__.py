"""What happens to VMs without a request: with the host's start and end, and in between.

It acts only through their drivers.

autostart.py      VMs that start with the host
host_shutdown.py  how they end with it
agent_watch.py    facts of the guests, asked for again and again
"""
