"""Networks, the catalogue that names them, and their weights."""
