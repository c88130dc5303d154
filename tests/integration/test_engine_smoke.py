from tests.integration.engine import *
async def test_smoke(database):
    desk = Desk(database, parcels())
    case = await desk.open()
    await case.take("ship")
    print(await case.work())
    print((await case.row()).state, await case.timeline())
    assert await case.chain_break() is None
