"""How long an engine takes, beside the original, in one run; and whether that run can be trusted."""
