"""Plain LoRA adapters in number: bound per row of a batch, read from PEFT folders and written to them."""
