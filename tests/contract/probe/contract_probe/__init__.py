"""An extension that watches a host from inside for the contract tests, and breaks things on request."""
