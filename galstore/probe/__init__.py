"""A probe of a survey's services: a few polite requests that show whether they and this client still agree."""
