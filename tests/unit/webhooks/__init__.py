"""Webhooks: signing, queues, repetition."""
