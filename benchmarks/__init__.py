"""Our shared code beside its peers: the same work, on one machine, in one run.  `make bench` runs it all."""
