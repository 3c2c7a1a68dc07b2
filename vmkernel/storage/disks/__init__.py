"""The host's disks, their content and health; no datastore is made or mounted here."""
