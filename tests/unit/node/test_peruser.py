from symphony.broker.attendance import Claimed
from symphony.node.peruser import LocalClaims


async def claim(claims: LocalClaims, connection: str, user: str = "ann", *, replace: bool = True) -> Claimed:
    return await claims.claim("/game", user, connection, "node", most=1, replace=replace)


async def test_the_later_claim_takes_the_place_of_the_earlier_one():
    claims = LocalClaims()
    assert await claim(claims, "one") == Claimed(granted=True)
    assert await claim(claims, "two") == Claimed(granted=True, evicted=(("one", "node"),))
    assert await claim(claims, "three") == Claimed(granted=True, evicted=(("two", "node"),))
    assert await claims.claims("/game", "ann") == 1


async def test_without_replacing_only_the_first_gets_it():
    claims = LocalClaims()
    assert (await claim(claims, "one", replace=False)).granted
    assert await claim(claims, "two", replace=False) == Claimed(granted=False)
    # A repeat gets the first answer.
    assert (await claim(claims, "one", replace=False)).granted
    await claims.release("one")
    assert (await claim(claims, "two", replace=False)).granted


async def test_users_and_routes_have_claims_of_their_own():
    claims = LocalClaims()
    await claim(claims, "one")
    assert await claim(claims, "two", "bob") == Claimed(granted=True)
    other = await claims.claim("/exam", "ann", "three", "node", most=1, replace=True)
    assert other == Claimed(granted=True)
    assert [await claims.claims("/game", user) for user in ("ann", "bob", "eve")] == [1, 1, 0]


async def test_nothing_is_left_when_all_are_released():
    claims = LocalClaims()
    for connection in ("one", "two", "three"):
        await claim(claims, connection)
    await claims.release("one")
    assert await claims.claims("/game", "ann") == 1
    await claims.release("three")
    await claims.release("three")
    assert (claims._claims, claims._keys) == ({}, {})
