"""Training: the shapes world, data sets, and the stages that make motion modules and LoRAs."""
