"""Clips longer than a motion module's window: which frames make up each window, and how windows are blended."""
