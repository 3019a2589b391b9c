"""Images by URL: what is refused before a look-up, what is pinned, where a fetch is cut."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from pydantic import ValidationError

import pictures
from asking import NoNumbers, Numbers, over_grpc, over_rest
from cases import ANSWER, QUESTION, SCAN, Body, item
from hostile.site import Site, hang, moved, page, site_at
from medreward.engine.images.fetch import FETCHES, REDIRECTS, Allowance, Fetcher, Resolve, fetcher_for, is_allowed
from medreward.errors import Code, ConfigurationError, ItemError
from medreward.settings import Settings
from serving import Server, running
from waiting import until

#: A fetch whose time ends in the handshake leaves its socket to the collector: which test that falls into is chance.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

IMAGE = pictures.jpeg()
MOST = 100_000
SECONDS = 0.5
METADATA = "169.254.169.254"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
async def site(authority: trustme.CA) -> AsyncIterator[Site]:
    async with site_at(authority) as site:
        yield site


@pytest.fixture(scope="module")
async def urls(site: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server that fetches from the site."""
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    site.authority.cert_pem.write_to_path(str(ca))
    hosts = f"127.0.0.1:{site.port}"
    async with running(image_url_hosts=hosts, image_url_ca=ca, image_url_private=True, image_url_seconds=8) as server:
        yield server


@pytest.fixture(autouse=True)
def no_pages_of_another_test(site: Site) -> None:
    site.pages.clear()
    site.requests.clear()


class Names:
    """A name server that gives one answer after another, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


HERE = ["127.0.0.1"]


async def fetched(
    site: Site,
    url: str,
    names: Resolve | None = None,
    seconds: float = 10,
    allowed: int = 10 * MOST,
    private: bool = True,
) -> bytes:
    """`{}` in the URL is the port; the fetcher knows two hosts."""
    hosts = [f"scans.example:{site.port}", f"other.example:{site.port}"]
    fetcher = Fetcher(hosts, private, MOST, seconds, site.trusted(), names or Names(HERE))
    try:
        return await fetcher.fetch(url.format(site.port), Allowance(allowed))
    finally:
        fetcher.close()


async def refusal(site: Site, url: str, names: Resolve | None = None, **limits: float) -> Code:
    with pytest.raises(ItemError) as refused:
        await fetched(site, url, names, **limits)  # type: ignore[arg-type]
    assert refused.value.field == "image"
    assert not any(part in refused.value.detail for part in ("example", "SECRET", str(site.port)))
    return refused.value.code


def triple(url: str) -> Body:
    return {"image": {"url": url}, "question": QUESTION, "response": ANSWER}


# Through the doors


async def test_an_image_by_url_scores_as_the_same_image_inline(urls: Server, site: Site) -> None:
    site.pages["/scan"] = page(IMAGE, "Content-Type: text/html")
    body = triple(f"https://127.0.0.1:{site.port}/scan")
    inline = await over_rest(urls, body | {"image": SCAN})
    assert await over_rest(urls, body) == await over_grpc(urls, body) == inline
    assert isinstance(inline, list)
    assert isinstance(inline[0], Numbers)


async def test_what_is_fetched_is_checked_like_any_image(urls: Server, site: Site) -> None:
    files = {"image_kind": b"<html>", "image_invalid": b"", "image_too_small": pictures.png(0, 4, 4)}
    for code, file in files.items():
        site.pages["/file"] = page(file)
        body = {"items": [item(image={"url": f"https://127.0.0.1:{site.port}/file"}, response="a")]}
        assert await over_rest(urls, body) == [NoNumbers(0, 0, code, "/items/0/image")]
        assert await over_grpc(urls, body) == [NoNumbers(0, 0, code, "/items/0/images/0")]


GOOD = "127.0.0.1:{port}"
REFUSED = {
    "B16 file": "file:///etc/passwd",
    "B16 file of the host": f"file://{GOOD}/etc/passwd",
    "B16 ftp": f"ftp://{GOOD}/a",
    "B16 gopher": f"gopher://{GOOD}/a",
    "B16 http": f"http://{GOOD}/a",
    "B16 data": "data:image/png;base64,iVBORw0KGgo=",
    "B16 no scheme": f"//{GOOD}/a",
    "B16 one slash": f"https:/{GOOD}/a",
    "B16 nothing": "",
    "B16 another host": "https://example.org/a",
    "B16 another port": "https://127.0.0.1/a",
    "B16 a host that ends alike": f"https://evil.{GOOD}/a",
    "B16 a port out of range": "https://127.0.0.1:99999/a",
    "B17 metadata": "http://169.254.169.254/",
    "B17 metadata over https": "https://169.254.169.254/",
    "B17 metadata mapped": "https://[::ffff:169.254.169.254]/",
    "B17 hexadecimal": "https://0x7f000001:{port}/a",
    "B17 decimal": "https://2130706433:{port}/a",
    "B17 octal": "https://0177.0.0.1:{port}/a",
    "B17 short": "https://127.1:{port}/a",
    "B17 localhost with a dot": "https://localhost.:{port}/a",
    "B17 loopback with a dot": "https://127.0.0.1.:{port}/a",
    "B17 IPv6 loopback": "https://[::1]:{port}/a",
    "B20 backslash": "http://127.0.0.1:{port}\\@169.254.169.254/",
    "B20 backslash over https": f"https://{GOOD}\\@169.254.169.254/",
    "B20 user": f"https://user@{GOOD}/a",
    "B20 user and password": f"https://user:word@{GOOD}/a",
    "B20 host as user": f"https://{GOOD}@169.254.169.254/a",
    "B20 line break in the path": f"https://{GOOD}/a\r\nX-Evil: 1",
    "B20 line break in the host": "https://127.0.0.1\r\n:{port}/a",
    "B20 line break at the end": f"https://{GOOD}/a\n",
    "B20 encoded line break in the host": "https://127.0.0.1%0d%0a:{port}/a",
    "B20 space before": f" https://{GOOD}/a",
    "B20 fragment": f"https://{GOOD}/a#@169.254.169.254",
    "B20 letters beyond ASCII": f"https://{GOOD}/\u212a",
    "B20 full-width digits": "https://\uff11\uff12\uff17.0.0.1:{port}/a",
    "B20 a lone surrogate": f"https://{GOOD}/\ud800",
    "B20 a NUL": f"https://{GOOD}/\0",
    "B20 too long": f"https://{GOOD}/{'a' * 5000}",
}


@pytest.mark.parametrize("url", REFUSED.values(), ids=REFUSED)
async def test_b17_b20_what_is_refused_before_anything_is_looked_up(urls: Server, site: Site, url: str) -> None:
    body = {"items": [item(image={"url": url.replace("{port}", str(site.port))}, response="a")]}
    before = site.connections
    assert await over_rest(urls, body) == [NoNumbers(0, 0, "image_url_refused", "/items/0/image")]
    if "\ud800" not in url:  # protobuf has no way to write it
        assert await over_grpc(urls, body) == [NoNumbers(0, 0, "image_url_refused", "/items/0/images/0")]
    assert site.connections == before
    names = Names(HERE)
    assert (
        await refusal(site, url.replace("{port}", str(site.port)).replace("{", "{{"), names) is Code.IMAGE_URL_REFUSED
    )
    assert names.asked == []


async def test_without_hosts_every_url_is_refused(fake: Server, site: Site) -> None:
    site.pages["/scan"] = page(IMAGE)
    body = {"items": [item(image={"url": f"https://127.0.0.1:{site.port}/scan"}, response="a")]}
    assert await over_rest(fake, body) == [NoNumbers(0, 0, "image_url_refused", "/items/0/image")]
    assert await over_grpc(fake, body) == [NoNumbers(0, 0, "image_url_refused", "/items/0/images/0")]
    assert site.requests == []
    assert fetcher_for(Settings()) is None


async def test_fetches_that_hang_hold_up_nobody_else(urls: Server, site: Site) -> None:
    site.pages["/hang"] = hang
    stuck = {"items": [item(image={"url": f"https://127.0.0.1:{site.port}/hang"}, response="a")] * 40}
    mixed = {"items": [*stuck["items"], item(image=SCAN, response="a")]}
    site.hanging = 0
    waiting = asyncio.create_task(over_rest(urls, mixed))
    await until(lambda: site.hanging == FETCHES)
    for seed in range(5):
        body = {"image": {"base64": SCAN}, "question": QUESTION, "response": str(seed)}
        assert isinstance(await over_grpc(urls, body), list)
    assert not waiting.done()
    assert site.hanging == FETCHES
    answer = await waiting
    assert isinstance(answer, list)
    *hanging, scored = answer
    assert {result.code for result in hanging if isinstance(result, NoNumbers)} == {"image_fetch_failed"}
    assert len(hanging) == 40
    assert isinstance(scored, Numbers)


# Names and addresses


PUBLIC = ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::1"]
INSIDE = [
    "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd12:3456::1", "127.0.0.1", "127.8.8.8", "::1",
    "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::1",
]  # fmt: skip
NEVER = [
    METADATA, "169.254.0.1", "fe80::1", "fe80::1%lo", f"::ffff:{METADATA}", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
    "fd00:ec2::254", "168.63.129.16", "100.100.100.200", "0.0.0.0", "::", "0.1.2.3", "224.0.0.1", "ff02::1",
    "255.255.255.255", "240.0.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "2001:db8::1", "2001::1", "fec0::1",
    "::7f00:1", "::127.0.0.1", "100::1", "5f00::1", "not an address", "127.1", "0x7f000001", "",
]  # fmt: skip


@pytest.mark.parametrize("address", [*PUBLIC, *INSIDE, *NEVER])
def test_which_addresses_are_fetched_from(address: str) -> None:
    assert is_allowed(address, private=False) is (address in PUBLIC)
    assert is_allowed(address, private=True) is (address in PUBLIC + INSIDE)


@pytest.mark.parametrize("answer", [[METADATA], ["::1", METADATA], [*HERE, METADATA], ["fe80::1"], ["0.0.0.0"]])
async def test_b19_a_listed_name_with_a_forbidden_address_is_refused(site: Site, answer: list[str]) -> None:
    before = site.connections
    assert await refusal(site, "https://scans.example:{}/scan", Names(answer)) is Code.IMAGE_URL_REFUSED
    assert site.connections == before


async def test_private_networks_are_refused_unless_a_setting_allows_them(site: Site) -> None:
    site.pages["/scan"] = page(IMAGE)
    assert await fetched(site, "https://scans.example:{}/scan", private=True) == IMAGE
    assert await refusal(site, "https://scans.example:{}/scan", private=False) is Code.IMAGE_URL_REFUSED


async def test_the_name_is_looked_up_once_and_the_connection_goes_there(site: Site) -> None:
    site.pages["/scan?a=1"] = page(IMAGE)
    names = Names(HERE, [METADATA])
    assert await fetched(site, "HTTPS://Scans.Example:{}/scan?a=1", names) == IMAGE
    assert names.asked == ["scans.example"]
    (head,) = site.requests
    assert head.splitlines()[1] == f"Host: scans.example:{site.port}"


async def test_a_name_that_is_not_known_is_a_failed_fetch(site: Site) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError

    assert await refusal(site, "https://scans.example:{}/", unknown) is Code.IMAGE_FETCH_FAILED


async def test_a_name_server_that_hangs_holds_up_its_own_host_only(site: Site) -> None:
    def slow(host: str, port: int) -> list[str]:
        time.sleep(SECONDS if host == "scans.example" else 0)
        return HERE

    site.pages["/scan"] = page(IMAGE)
    hosts = [f"scans.example:{site.port}", f"other.example:{site.port}"]
    fetcher = Fetcher(hosts, True, MOST, SECONDS / 2, site.trusted(), slow)
    stuck = [fetcher.fetch(f"https://{hosts[0]}/scan", Allowance(MOST)) for _ in range(3 * FETCHES)]
    other = Fetcher(hosts, True, MOST, 60, site.trusted(), slow)
    *failed, found = await asyncio.gather(
        *stuck, other.fetch(f"https://{hosts[1]}/scan", Allowance(MOST)), return_exceptions=True
    )
    assert {error.code for error in failed if isinstance(error, ItemError)} == {Code.IMAGE_FETCH_FAILED}
    assert found == IMAGE
    fetcher.close()
    other.close()


# What is sent, and to whom


async def test_nothing_but_the_question_is_sent_and_no_proxy_is_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    site.pages |= {
        "/scan": page(b"", "Set-Cookie: a=b; Path=/", "Location: /next", status="302 Found"),
        "/next": page(IMAGE),
    }
    assert await fetched(site, "https://scans.example:{}/scan") == IMAGE
    assert len(site.requests) == 2
    for head in site.requests:
        names = {line.partition(":")[0].lower() for line in head.splitlines()[1:] if line}
        assert names == {"host", "accept-encoding", "connection"}
        assert "Accept-Encoding: identity" in head


async def test_a_certificate_must_be_trusted_and_for_this_name(site: Site) -> None:
    site.pages["/scan"] = page(IMAGE)
    for hosts, tls in (
        (f"third.example:{site.port}", site.trusted()),
        (f"scans.example:{site.port}", Site(trustme.CA()).trusted()),
    ):
        fetcher = Fetcher([hosts], True, MOST, 10, tls, Names(HERE))
        with pytest.raises(ItemError) as refused:
            await fetcher.fetch(f"https://{hosts}/scan", Allowance(MOST))
        assert refused.value.code is Code.IMAGE_FETCH_FAILED
        fetcher.close()
    assert site.requests == []


# redirects


@pytest.mark.parametrize(
    "to",
    [
        "http://scans.example:{}/scan",
        "https://169.254.169.254/",
        "https://127.0.0.1:{}/scan",
        "//127.0.0.1:{}/scan",
        "https://user@scans.example:{}/scan",
        "https://scans.example:{}\\@169.254.169.254/",
        "file:///etc/passwd",
        "https://[::1",
        "https://[::1]:{}/scan",
    ],
)
async def test_a_redirect_is_checked_like_a_url(site: Site, to: str) -> None:
    site.pages |= {"/away": moved(to.format(site.port)), "/scan": page(IMAGE)}
    assert await refusal(site, "https://scans.example:{}/away") is Code.IMAGE_URL_REFUSED
    assert len(site.requests) == 1


async def test_a_listed_host_may_not_lead_to_a_forbidden_address(site: Site) -> None:
    def names(host: str, port: int) -> list[str]:
        return HERE if host == "scans.example" else [METADATA]

    site.pages |= {"/away": moved(f"https://other.example:{site.port}/scan"), "/scan": page(IMAGE)}
    assert await refusal(site, "https://scans.example:{}/away", names) is Code.IMAGE_URL_REFUSED
    assert len(site.requests) == 1


async def test_a_redirect_within_the_rules_is_followed_and_looked_up_anew(site: Site) -> None:
    names = Names(HERE)
    site.pages |= {"/a/b": moved("../c?d"), "/c?d": moved(f"https://other.example:{site.port}/e"), "/e": page(IMAGE)}
    assert await fetched(site, "https://scans.example:{}/a/b", names) == IMAGE
    assert names.asked == ["scans.example", "scans.example", "other.example"]


async def test_redirects_end(site: Site) -> None:
    site.pages |= {f"/{n}": moved(f"/{n + 1}") for n in range(REDIRECTS + 1)}
    site.pages[f"/{REDIRECTS + 1}"] = page(IMAGE)
    assert await fetched(site, "https://scans.example:{}/1") == IMAGE
    assert await refusal(site, "https://scans.example:{}/0") is Code.IMAGE_FETCH_FAILED


# hostile answers


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n"]
)
async def test_an_endless_stream_is_cut_at_the_byte_cap(site: Site, head: bytes) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(head)
        while True:
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    site.pages["/endless"] = endless
    assert (
        await refusal(site, "https://scans.example:{}/endless", seconds=30, allowed=10**12) is Code.IMAGE_FETCH_FAILED
    )
    assert sent < 20_000_000  # what the sockets between us hold


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["mute", "head", "body"]
)
async def test_a_slow_answer_is_cut_at_the_time_cap(site: Site, start: bytes) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    site.pages["/slow"] = drip if start else hang
    async with asyncio.timeout(60):
        assert await refusal(site, "https://scans.example:{}/slow", seconds=SECONDS) is Code.IMAGE_FETCH_FAILED


def connections_to(site: Site) -> int:
    """Established ones, from this end."""
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{site.port:04X}") and row[3] == "01" for row in rows)


async def test_fetches_cut_short_leave_nothing_open(site: Site) -> None:
    site.pages["/hang"] = hang
    # They must outlast the others, however long ten handshakes take on a machine under load.
    left = [asyncio.create_task(fetched(site, "https://scans.example:{}/hang", seconds=600)) for _ in range(10)]
    await until(lambda: connections_to(site) == len(left))
    slow = [refusal(site, "https://scans.example:{}/hang", seconds=4) for _ in range(10)]  # longer than the handshakes
    assert set(await asyncio.gather(*slow)) == {Code.IMAGE_FETCH_FAILED}
    await until(lambda: connections_to(site) == len(left))
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await until(lambda: connections_to(site) == 0)


async def test_time_runs_over_all_redirects_together(site: Site) -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(SECONDS * 0.8)
        writer.write(moved("/slow"))

    site.pages["/slow"] = slow
    assert await refusal(site, "https://scans.example:{}/slow", seconds=SECONDS) is Code.IMAGE_FETCH_FAILED
    assert len(site.requests) < REDIRECTS + 1


BROKEN = {
    "promises more than it sends": page(IMAGE, length=len(IMAGE) + 1),
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + IMAGE,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + IMAGE,
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + IMAGE,
    "chunks that break off": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "a chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\n",
    "not HTTP": b"SSH-2.0-SECRET\r\n",
    "nothing": b"",
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X-A: SECRET\r\n" * 100_000,
    "compressed": page(IMAGE, "Content-Encoding: gzip"),
    "not found": page(IMAGE, status="404 SECRET"),
    "no content": page(b"", status="204 No Content"),
    "a part": page(IMAGE, status="206 Partial Content"),
    "moved to nowhere": page(b"", status="302 Found"),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_broken_answer_is_a_failed_fetch(site: Site, answer: bytes) -> None:
    site.pages["/broken"] = answer
    assert await refusal(site, "https://scans.example:{}/broken") is Code.IMAGE_FETCH_FAILED


async def test_no_more_than_the_promised_length_is_read(site: Site) -> None:
    site.pages["/short"] = page(IMAGE, length=len(IMAGE) - 9)
    assert await fetched(site, "https://scans.example:{}/short") == IMAGE[:-9]  # which then is image_invalid


async def test_one_request_has_no_more_fetched_than_a_body_may_hold(urls: Server, site: Site) -> None:
    site.pages["/scan"] = page(IMAGE)
    assert await fetched(site, "https://scans.example:{}/scan", allowed=len(IMAGE)) == IMAGE
    assert await refusal(site, "https://scans.example:{}/scan", allowed=len(IMAGE) - 1) is Code.IMAGE_FETCH_FAILED
    large = pictures.encoded("PNG", pictures.pixels(0, 550, 550))
    site.pages["/large"] = page(large)
    image = item(image={"url": f"https://127.0.0.1:{site.port}/large"}, response="a")
    room = urls.engine.settings.body_bytes // len(large)
    for count, fit in ((room, True), (room + 1, False)):
        answer = await over_rest(urls, {"items": [image] * count})
        assert isinstance(answer, list)
        assert all(isinstance(result, Numbers) for result in answer) is fit


async def test_nobody_listens(authority: trustme.CA) -> None:
    async with site_at(authority) as gone:
        pass
    assert await refusal(gone, "https://scans.example:{}/") is Code.IMAGE_FETCH_FAILED


# Settings


def test_hosts_are_a_list_of_names() -> None:
    assert Settings(image_url_hosts="pacs.example, cdn.example:8443").image_url_hosts == (
        "pacs.example",
        "cdn.example:8443",
    )
    assert Settings(image_url_hosts="").image_url_hosts == ()
    for wrong in (
        "https://pacs.example",
        "pacs.example/",
        "*.example",
        "[::1]",
        "a b",
        "user@pacs.example",
        "a..b",
        "a.",
    ):
        with pytest.raises(ValidationError):
            Settings(image_url_hosts=wrong)


async def test_a_listed_port_443_is_the_usual_one(site: Site) -> None:
    fetcher = Fetcher(["PACS.example:443"], False, MOST, 10, site.trusted(), Names([METADATA]))
    for url in ("https://pacs.example/", "https://pacs.example:443?a", "https://PACS.example:0443/"):
        with pytest.raises(ItemError, match="address"):
            await fetcher.fetch(url, Allowance(MOST))
    fetcher.close()


def test_a_file_without_certificates_stops_the_start(tmp_path: Path) -> None:
    for content in (None, "nothing"):
        file = tmp_path / f"{content}.pem"
        if content:
            file.write_text(content)
        with pytest.raises(ConfigurationError, match=r"image_url_ca: .*\.pem holds no PEM certificate"):
            fetcher_for(Settings(image_url_hosts="pacs.example", image_url_ca=file))
