"""Measurements that tell which arrangement will train, and whether what is claimed holds."""
