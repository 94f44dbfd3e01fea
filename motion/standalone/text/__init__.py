"""Prompts as AUTOMATIC1111 reads them: schedules, composition, weights, chunks, and the tensors made from them."""
