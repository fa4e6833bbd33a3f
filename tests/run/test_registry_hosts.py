"""Which server a name means, how it may be reached, and who may know what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minirt.errors import BadInputError
from minirt.registry import credentials, hosts, library
from minirt.registry.auth import Credentials
from minirt.registry.client import RegistryError
from tests import played_registry as played


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def settings(monkeypatch: pytest.MonkeyPatch, **said: list[str]) -> None:
    full = {"insecure-registries": said.get("insecure", []), "registry-mirrors": said.get("mirrors", [])}
    monkeypatch.setattr(hosts, "settings", lambda: full)


def test_docker_hub_has_a_server_and_a_key_of_its_own() -> None:
    assert hosts.server("docker.io") == "registry-1.docker.io"
    assert hosts.key("docker.io") == hosts.key("index.docker.io") == "https://index.docker.io/v1/"
    assert hosts.server("ghcr.io") == hosts.key("ghcr.io") == "ghcr.io"


@pytest.mark.parametrize(("host", "open_one"), [
    ("localhost", True), ("localhost:5000", True), ("127.0.0.1:5000", True), ("127.9.9.9", True), ("[::1]:5000", True),
    ("registry.lan", False), ("10.1.2.3:5000", True), ("10.2.2.3:5000", False), ("known.lan:5000", True),
    ("known.lan:5001", False), ("localhost.evil.org", False), ("127.0.0.1.evil.org", False),
])
def test_only_loopback_and_what_is_listed_may_be_open(host: str, open_one: bool) -> None:
    assert hosts.insecure(host, ["known.lan:5000", "10.1.0.0/16"]) == open_one


def test_an_open_registry_that_nobody_listed_is_not_reached_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    settings(monkeypatch)
    monkeypatch.setattr(hosts, "insecure", lambda host, listed: host in listed)
    with played.Registry() as registry:
        ours = hosts.connect(registry.host)
        with pytest.raises(RegistryError, match="server gave HTTP response to HTTPS client"):
            ours.ping()
        settings(monkeypatch, insecure=[registry.host])
        hosts.connect(registry.host).ping()
        settings(monkeypatch)
        hosts.connect(registry.host, allow_insecure=True).ping()


@pytest.mark.parametrize(("name", "sentence"), [
    ("IP:127.0.0.1", "nobody known here has signed it"), ("DNS:other.lan", "nobody known here|another name"),
])
def test_an_unknown_certificate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str,
                                           ) -> None:
    settings(monkeypatch)
    monkeypatch.setattr(hosts, "insecure", lambda host, listed: False)
    tls, _ = played.certificate(tmp_path, name)
    with played.Registry(tls=tls) as registry, pytest.raises(RegistryError, match=sentence):
        hosts.connect(registry.host, Credentials("ada", "geheim")).ping()
    assert not registry.seen, "nothing was said to it"


def test_certs_d_says_whom_to_trust_but_not_for_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings(monkeypatch)
    monkeypatch.setattr(hosts, "insecure", lambda host, listed: False)
    monkeypatch.setattr(hosts, "_CERTIFICATES", (str(tmp_path / "certs.d"),))
    for name, sentence in (("IP:127.0.0.1", ""), ("DNS:other.lan", "another name")):
        place = tmp_path / name[:3]
        place.mkdir()
        tls, authority = played.certificate(place, name)
        with played.Registry(tls=tls) as registry:
            known = tmp_path / "certs.d" / registry.host
            known.mkdir(parents=True)
            (known / "ca.crt").write_bytes(authority.read_bytes())
            if sentence:
                with pytest.raises(RegistryError, match=sentence):
                    hosts.connect(registry.host).ping()
            else:
                hosts.connect(registry.host).ping()


def test_a_client_certificate_without_its_key_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_CERTIFICATES", (str(tmp_path),))
    (tmp_path / "a.lan").mkdir()
    (tmp_path / "a.lan" / "client.cert").write_text("")
    with pytest.raises(BadInputError, match=r"missing key .*client\.key for client certificate"):
        hosts.certificates("a.lan")


def test_proxies_are_used_and_no_proxy_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.lan:3128")
    monkeypatch.setenv("NO_PROXY", "near.lan,127.0.0.1")
    session = hosts.Session([])

    def proxies(url: str) -> Any:
        return session.merge_environment_settings(url, None, None, None, None)["proxies"]

    assert proxies("https://far.lan/v2/")["https"] == "http://proxy.lan:3128"
    assert proxies("https://near.lan/v2/") == {} == proxies("https://127.0.0.1:5000/v2/")


def test_a_mirror_is_asked_first_and_sees_nothing_of_the_hubs_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                                   ) -> None:
    with played.Registry() as mirror:
        settings(monkeypatch, mirrors=[mirror.url + "/"])
        credentials.store(hosts.HUB_KEY, Credentials("ada", "geheim"))
        [found] = hosts.mirrors("docker.io")
        found.ping()
        assert mirror.shown() == [""] and hosts.mirrors("ghcr.io") == []
    settings(monkeypatch, mirrors=["mirror.lan"])
    with pytest.raises(BadInputError, match="no address"):
        hosts.mirrors("docker.io")


def test_netrc_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("default login ada password geheim\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with played.Registry() as registry:
        hosts.connect(registry.host).ping()
        assert set(registry.shown()) == {""}


def test_the_settings_file_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts.state, "read_json", lambda path: {"insecure-registries": "x"})
    with pytest.raises(BadInputError, match="insecure-registries is not a list of strings"):
        hosts.settings()


def test_dockers_file_in_all_its_forms(tmp_path: Path) -> None:
    place = tmp_path / "docker" / "config.json"
    place.parent.mkdir()
    place.write_text(json.dumps({"auths": {
        "https://a.lan/v1/": {"auth": "YWRhOmc6aA=="}, "b.lan": {"username": "bob", "password": "x"},
        "c.lan": {"auth": "Yzo=", "identitytoken": "t"}, "d.lan": {}}}))
    assert credentials.find("a.lan") == Credentials("ada", "g:h")
    assert credentials.find("b.lan") == Credentials("bob", "x")
    assert credentials.find("c.lan") == Credentials("c", "", "t")
    assert credentials.find("d.lan") == credentials.find("e.lan") == Credentials()
    place.write_text("{")
    with pytest.raises(BadInputError, match=r"config\.json"):
        credentials.find("a.lan")


def test_a_missing_library_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *words: Any) -> Any:
        if name == "requests":
            raise ImportError
        return real(name, *words)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Exception, match="apt install python3-requests"):
        library.prepare()
