"""The host's disks, what they hold and how they are; no datastore is made or mounted here."""
