"""Measurements that tell which arrangement will train: what ``resnorm lab`` runs."""
