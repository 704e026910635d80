"""Measurements that tell which arrangement will train."""
