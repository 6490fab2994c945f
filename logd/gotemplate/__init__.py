"""Go's text/template, the part that log tags use: tokens, functions, template (which the others are for)."""
