"""Published results on signal propagation, measured again: what ``resnorm lab theory`` runs."""
