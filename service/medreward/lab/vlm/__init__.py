"""Fine-tuning of vision-language models into reward models: data, losses, the loop, a folder that serves."""
