"""The datastores of this host: which exist, how they are attached and detached, how full they are;
it must not touch their content except for leases.
"""
