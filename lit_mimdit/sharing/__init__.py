"""Trained systems as files, diffusers pipelines and repositories of the Hugging Face Hub."""
