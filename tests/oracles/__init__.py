"""The identities O1 to O33 of gated LoRA, each with its control."""
