"""The datastores of this host: which there are, how they come and go, how full they are; it must
not touch what lies in them, but for their leases."""
