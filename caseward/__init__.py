"""The engine of Caseward: policy, operations, effects, outbox, recovery. It knows no business."""
