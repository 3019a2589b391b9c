"""Any transformers vision-language model with heads on the last token of the answer."""
