"""Many processes of one run: a file for a cluster, or processes here that are started again."""
