"""Fine-tuning plain LoRAs on anybody's texts: rows, tokens, training, what is written."""
