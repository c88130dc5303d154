"""The HTTP face: authenticates, parses, calls `caseward.cases`, and turns documents and refusals into answers."""
