"""Compliance: evidence that nobody can read goes back, two groups approve, a certificate is made, and revoked."""

from fpdf import FPDF

from dev.demo.day import Day

APPLICANT, OFFICER = ("applicant-1", ("compliance_applicant",)), ("officer-1", ("compliance_officer",))
LEGAL, RISK = ("legal-1", ("legal_approver",)), ("risk-1", ("risk_approver",))


async def play(day: Day) -> None:
    """One application, from a torn file to a certificate that is withdrawn."""
    day.scene("Evidence is looked at in earnest: a torn file goes back, a readable one comes into review")
    applicant = await day.person(APPLICANT[0], *APPLICANT[1])
    case = await day.open(applicant, "compliance_approval")
    await applicant.upload(case, "evidence", "torn.pdf", b"%PDF-1.7\nno more than this")
    day.say("applicant-1 adds torn.pdf")
    await day.take(*APPLICANT, case, "submit")
    case = await day.comes_to(case, "changes_requested")
    for document in (await applicant.get(f"/v1/cases/{case['case_id']}/documents"))["documents"]:
        why = "; ".join(reason["message"] for reason in document["reasons"])
        day.say(f"{document['name']} is {document['state']}: {why}")
        await applicant.upload(case, "evidence", "audit.pdf", report(), replaces=document["document_id"])
        day.say("applicant-1 replaces it by audit.pdf")
    await day.take(*APPLICANT, case, "submit")
    case = await day.comes_to(case, "in_review")

    day.scene("Two of three groups approve, legal always among them; the certificate is made once, and later revoked")
    proposed = await day.take(*LEGAL, case, "approve")
    risk = await day.person(RISK[0], *RISK[1])
    confirmed = await risk.post(f"/v1/operations/{proposed['operation_id']}/confirm", {"reason": "Fine with us"})
    day.say(f"risk-1 confirms it: {confirmed['state']}")
    case = await day.comes_to(case, "approved")
    await day.take(*OFFICER, case, "revoke", grounds="The auditor withdrew the report.")
    await day.comes_to(case, "revoked")


def report() -> bytes:
    """A page that anybody can read."""
    page = FPDF()
    page.add_page()
    page.set_font("helvetica", size=14)
    page.cell(text="Audit report")
    return bytes(page.output())
