"""Drives the simulator with Composio's official Python client, unchanged.

Usage: python_client.py BASE_URL API_KEY

The client runs with strict response validation, so an answer that lacks a required field or has one of another type
fails here. Exits with a status other than zero on the first thing that is not as it should be.
"""

import json
import sys
import urllib.request

import composio_client
from composio_client import Composio


def main(base_url: str, api_key: str) -> None:
    client = Composio(api_key=api_key, base_url=base_url, max_retries=0, _strict_response_validation=True)

    def control(path: str, body: dict) -> dict:
        request = urllib.request.Request(
            f"{base_url}/_sim{path}",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    # Toolkits and tools.
    toolkits = client.toolkits.list(limit=100)
    assert {item.slug for item in toolkits.items} >= {"reddit", "slack", "github", "hackernews"}, toolkits
    assert {item.slug for item in toolkits.items if item.no_auth} == {"hackernews", "codeinterpreter"}
    reddit = client.toolkits.retrieve("reddit")
    assert reddit.auth_config_details is not None and reddit.auth_config_details[0].mode == "OAUTH2"
    assert reddit.meta.available_versions[0] == reddit.meta.version
    tools = client.tools.list(toolkit_slug="reddit", limit=100)
    assert tools.total_items == len(tools.items) == reddit.meta.tools_count
    about = client.tools.retrieve("REDDIT_GET_REDDIT_USER_ABOUT", toolkit_versions={"reddit": "20251209_00"})
    assert about.version == "20251209_00" and about.input_parameters["required"] == ["username"]
    assert "REDDIT_GET_SCOPES" in client.tools.retrieve_enum()

    # Auth configs.
    configs = client.auth_configs.list(toolkit_slug="reddit", limit=100)
    assert [item.id for item in configs.items] == ["ac_reddit"], configs
    assert configs.items[0].status == "ENABLED" and configs.items[0].is_composio_managed is True
    made = client.auth_configs.create(
        toolkit={"slug": "github"},
        auth_config={
            "type": "use_custom_auth",
            "auth_scheme": "OAUTH2",
            "name": "own app",
            "credentials": {"client_id": "id", "client_secret": "secret"},
        },
    )
    own = client.auth_configs.retrieve(made.auth_config.id)
    assert own.name == "own app" and own.type == "custom" and own.toolkit.slug == "github"
    client.auth_configs.update_status("DISABLED", nanoid=own.id)
    assert client.auth_configs.retrieve(own.id).status == "DISABLED"
    assert own.id not in {item.id for item in client.auth_configs.list().items}
    client.auth_configs.delete(own.id)
    expect(composio_client.NotFoundError, lambda: client.auth_configs.retrieve(own.id))

    # A link, the person who completes it, and the account.
    link = client.link.create(auth_config_id="ac_reddit", user_id="python", alias="first")
    account_id = link.connected_account_id
    assert link.redirect_url == f"{base_url}/link/{link.link_token}"
    assert client.connected_accounts.retrieve(account_id).status == "INITIALIZING"
    taken = expect(
        composio_client.BadRequestError,
        lambda: client.link.create(auth_config_id="ac_reddit", user_id="python", alias="first"),
    )
    assert taken.body["error"]["code"] == 600, taken.body
    with urllib.request.urlopen(link.redirect_url) as page:
        assert "Connect your Reddit account" in page.read().decode()
    assert client.connected_accounts.retrieve(account_id).status == "INITIATED"
    control(f"/accounts/{account_id}/consent", {"username": "alice"})
    account = client.connected_accounts.retrieve(account_id)
    assert (account.status, account.alias, account.user_id) == ("ACTIVE", "first", "python"), account
    assert account.toolkit.slug == "reddit" and account.auth_config.is_composio_managed

    # Lists: the client joins arrays with commas.
    second = client.link.create(auth_config_id="ac_reddit", user_id="other").connected_account_id
    listed = client.connected_accounts.list(
        user_ids=["python", "other"],
        statuses=["ACTIVE", "INITIALIZING"],
        toolkit_slugs=["reddit"],
        connected_account_ids=[account_id, second],
        account_type="ALL",
        order_by="created_at",
        order_direction="asc",
        limit=1,
    )
    assert [item.id for item in listed.items] == [account_id] and listed.total_items == 2, listed
    following = client.connected_accounts.list(
        user_ids=["python", "other"], order_direction="asc", limit=1, cursor=listed.next_cursor
    )
    assert [item.id for item in following.items] == [second] and following.next_cursor is None, following

    # Tools run on the account, and on none where none is needed.
    result = client.tools.execute(
        "REDDIT_GET_REDDIT_USER_ABOUT",
        user_id="python",
        connected_account_id=account_id,
        arguments={"username": "me"},
        version="20260424_00",
    )
    assert result.successful and result.data["data"]["name"] == "alice", result
    front = client.tools.execute("HACKERNEWS_GET_FRONTPAGE", user_id="python", arguments={})
    assert front.successful and front.data["hits"], front
    mismatch = expect(
        composio_client.BadRequestError,
        lambda: client.tools.execute(
            "REDDIT_GET_REDDIT_USER_ABOUT",
            user_id="other",
            connected_account_id=account_id,
            arguments={"username": "me"},
        ),
    )
    assert mismatch.body["error"]["code"] == 1812, mismatch.body

    # Off, on, renamed, gone.
    assert client.connected_accounts.update_status(account_id, enabled=False).success
    disabled = client.connected_accounts.retrieve(account_id)
    assert (disabled.status, disabled.is_disabled) == ("INACTIVE", True), disabled
    assert client.connected_accounts.update_status(account_id, enabled=True).success
    renamed = client.connected_accounts.patch(account_id, alias="renamed")
    assert renamed.success and renamed.status == "ACTIVE"
    assert client.connected_accounts.retrieve(account_id).alias == "renamed"
    assert client.connected_accounts.delete(account_id).success
    expect(composio_client.NotFoundError, lambda: client.connected_accounts.retrieve(account_id))
    expect(composio_client.NotFoundError, lambda: client.connected_accounts.delete(account_id))

    # Refusals the client has classes for.
    stranger = client.with_options(api_key="ak_stranger")
    expect(composio_client.AuthenticationError, lambda: stranger.toolkits.list())
    control("/faults", {"rules": [{"fault": {"kind": "rateLimited", "retryAfter": 1}}]})
    expect(composio_client.RateLimitError, lambda: client.toolkits.list())
    control("/faults", {"rules": [{"fault": {"kind": "dropAfterCommit"}}]})
    expect(composio_client.APIConnectionError, lambda: client.toolkits.list())


def expect(kind, call):
    """Returns the error of that kind which the call raises."""
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, got {answer!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
