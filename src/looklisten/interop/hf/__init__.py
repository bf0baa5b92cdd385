"""Models of the Hugging Face Hub as backbones and as encoders. Needs `looklisten[hf]`."""
