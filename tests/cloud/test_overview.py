"""What users are shown of the hosts that keep their documents."""

from tests.cloud.office import Office

from pullprint.cloud import nodes


async def test_a_user_sees_names_and_who_is_awake_and_no_addresses(office: Office) -> None:
    first, second = await office.join(), await office.join()
    (site,) = (await office.ask("GET", "/api/v1/mesh", token=await office.sign_in())).body
    assert site["site"] == "hq" and {node["node"] for node in site["nodes"]} == {first.id, second.id}
    for node in site["nodes"]:
        assert (node["name"], node["role"], node["awake"]) == ("desk-1", "normal", True)
        assert (node["endpoint"], node["version"], node["trouble"], node["here"]) == ("", "", "", False)
    office.clock.shift = nodes.AWAKE + 5
    await second.call("GET", "/node/v1/config")
    (site,) = (await office.ask("GET", "/api/v1/mesh", token=await office.sign_in())).body
    assert {node["node"]: node["awake"] for node in site["nodes"]} == {first.id: False, second.id: True}


async def test_nobody_sees_another_organisations_hosts_nor_those_that_were_shut_out(office: Office) -> None:
    node = await office.join()
    gus = await office.sign_in("gus@example.com")
    assert (await office.ask("GET", "/api/v1/mesh", token=gus)).body == []
    office.store.transact(nodes.revoke, "acme", node.id)
    assert (await office.ask("GET", "/api/v1/mesh", token=await office.sign_in())).body == []
