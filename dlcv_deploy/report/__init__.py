"""One report of a build, as JSON for machines and as Markdown and plain text for people."""
