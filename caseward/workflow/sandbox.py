"""The workflow sandbox, set up once for worker, tests and replay."""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import SandboxImportNotificationPolicy

# Declarations and messages hold no state and do no I/O, so every workflow may share one copy of them. What is not
# listed here and gets passed through all the same is an error.
SHARED = ("caseward", "processes", "pydantic", "pydantic_core", "annotated_types", "typing_extensions")


def runner() -> SandboxedWorkflowRunner:
    """The runner of all workflows."""
    restrictions = SandboxRestrictions.default.with_passthrough_modules(*SHARED).with_import_notification_policy(
        SandboxImportNotificationPolicy.WARN_ON_DYNAMIC_IMPORT
        | SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
    )
    return SandboxedWorkflowRunner(restrictions=restrictions)
