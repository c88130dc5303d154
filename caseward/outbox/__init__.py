"""The outbox: promises committed with the change, and the dispatcher that keeps them."""
