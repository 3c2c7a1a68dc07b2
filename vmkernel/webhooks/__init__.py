"""Events sent to other hosts' URLs, signed and repeated; what connects is a confined worker."""

from vmkernel.webhooks.service import WebhookService

__all__ = ["WebhookService"]
