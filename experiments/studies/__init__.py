"""One folder a study: its module, claims, figures and report."""
