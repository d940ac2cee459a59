"""Is the engine still the network: the same pixels through both, and the answers held against each other."""
