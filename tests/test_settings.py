import re
from datetime import timedelta
from pathlib import Path

import pytest

from logagg.collector.config import effective, load_settings, unknown_variables
from logagg.collector.settings import Settings, SettingsError
from logagg.collector.units import Address, format_duration, parse_address, parse_duration


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        *unknown_variables(),
        *(f"LOGAGG_{field.upper()}" for field in Settings.model_fields),
        "LOGAGG_CONFIG",
    ]:
        monkeypatch.delenv(name, raising=False)


def written(folder: Path, text: str) -> Path:
    path = folder / "logagg.toml"
    path.write_text(text)
    return path


def test_the_addresses_are_those_of_the_contract() -> None:
    settings = load_settings()
    assert settings.http_listen == Address("127.0.0.1", 8000)
    assert settings.tcp_listen == Address("127.0.0.1", 5170)
    assert settings.syslog_udp_listen == settings.syslog_tcp_listen == Address("127.0.0.1", 5140)


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, 'http_listen = ":1"\ntcp_listen = ":2"\nflush_interval = "5ms"\n')
    monkeypatch.setenv("LOGAGG_TCP_LISTEN", "[::1]:3")
    monkeypatch.setenv("LOGAGG_SYSLOG_UDP_LISTEN", "")
    monkeypatch.setenv("LOGAGG_CONFIG", str(path))
    settings = load_settings()
    assert settings.http_listen == Address("127.0.0.1", 1)
    assert settings.tcp_listen == Address("::1", 3)
    assert settings.syslog_udp_listen is None
    assert settings.flush_interval == timedelta(milliseconds=5)
    places = {each.name: each.place for each in effective(settings)}
    assert places["http_listen"] == f"{path}:1"
    assert places["tcp_listen"] == "LOGAGG_TCP_LISTEN"
    assert places["flush_interval"] == f"{path}:3"
    assert places["buffer_bytes"] == "default"


def test_every_error_is_named_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, 'no_such = 1\n\nflush_interval = "soon"\nmax_frame = "1KiB"\n[table]\nx = 1\n')
    monkeypatch.setenv("LOGAGG_HTTP_LISTEN", "nowhere")
    monkeypatch.setenv("LOGAGG_SYSLOG_ZONE", "Mars/Phobos")
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "LOGAGG_HTTP_LISTEN",
        "LOGAGG_SYSLOG_ZONE",
        f"{path}:3",
        f"{path}:1",
        f"{path}:5",
    ]
    assert "expected HOST:PORT" in lines[0]
    assert "no time zone" in lines[1]
    assert "no duration" in lines[2]
    assert "no_such: unknown setting" in lines[3]


def test_what_is_wrong_between_settings_is_told_with_what_is_wrong_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, 'flush_lanes = 99\nredact = "zzz"\nrows_retention = "9d"\ntls_listeners = "http_listen"\n')
    monkeypatch.setenv("LOGAGG_ALLOW", "nowhere")
    monkeypatch.setenv("LOGAGG_RETENTION", "1d")

    def told() -> list[str]:
        with pytest.raises(SettingsError) as caught:
            load_settings(path)
        return str(caught.value).splitlines()

    between = [
        f"{path}:3: rows_retention (9d) is longer than retention (1d)",
        f"{path}: http_listen over TLS, and there is no tls_certificate",
        "LOGAGG_ALLOW: allow: 'nowhere': expected LISTENER=NETWORK, such as http_listen=10.0.0.0/8",
        f"{path}:2: redact: zzz: not of url_password, bearer, jwt, aws_key, email, card",
    ]
    assert told() == [f"{path}:1: flush_lanes: has to be at most 16", *between]
    monkeypatch.setenv("LOGAGG_FLUSH_LANES", "3")
    assert told() == between
    # What follows from a setting that is wrong by itself is not told.
    monkeypatch.setenv("LOGAGG_RETENTION", "soon")
    path.write_text(path.read_text() + "tls_certificate = 3\n")
    assert [re.findall(r"[a-z_]+: \S+", line)[0] for line in told()] == [
        "tls_certificate: expected", "retention: 'soon'", "allow: 'nowhere':", "redact: zzz:"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data_dir = 3", "expected a path"),
        ("environment = 4", "expected text"),
        ('memory = "1MiB"', "has to be at least 64MiB"),
        ('http_max_body = "2GiB"', "has to be at most 1GiB"),
        ('max_frame = "1KB"\nbuffer_bytes = 9', "has to be at least 64KiB"),
        ("max_frame = 479", "has to be at least 480 bytes"),
        ('udp_receive_buffer = "12XB"', "expected a number of bytes or a size such as 64MiB"),
        ('limit_records = "a"', "expected a whole number"),
        ("limit_records = 0", "has to be at least 1"),
        ('rows_gin = "perhaps"', "expected true or false"),
        ("redact_patterns = []", "expected a table"),
        ('log_format = "yaml"', "expected 'auto', 'json' or 'console'"),
        ('retention = "0"', "has to be more than 0 seconds"),
    ],
)
def test_what_a_setting_takes_is_said_in_plain_words(tmp_path: Path, setting: str, said: str) -> None:
    path = written(tmp_path, setting)
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert str(caught.value).endswith(f": {said}")


def test_rows_never_outlive_their_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGAGG_RETENTION", "3d")
    load_settings()  # the default of the other is longer, and means no more
    monkeypatch.setenv("LOGAGG_ROWS_RETENTION", "4d")
    with pytest.raises(SettingsError, match=r"rows_retention \(4d\) is longer than retention \(3d\)"):
        load_settings()


def test_settings_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGAGG_BUFFER_BYTES", "100KiB")
    with pytest.raises(SettingsError, match=r"max_frame \(1048576 bytes\) is more than buffer_bytes \(102400 bytes\)"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "said"), [("a = ", "not TOML"), ("a = '\udcff'", "not TOML"), (None, "cannot be read: No such file")]
)
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "logagg.toml"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError, match=said):
        load_settings(path)


def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGAGG_DATABASE_URL", "postgresql://me:secret@db/logs")
    shown = {each.name: each.value for each in effective(load_settings())}
    assert shown["database_url"] == "postgresql://me:***@db/logs"


def test_an_address_of_something_else_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGAGG_DATABASE_URL", "mysql://me:secret@db/logs")
    with pytest.raises(
        SettingsError, match=r"^LOGAGG_DATABASE_URL: database_url: not an address of PostgreSQL"
    ) as error:
        load_settings()
    assert "secret" not in str(error.value)


def test_an_empty_database_url_means_the_embedded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGAGG_DATABASE_URL", "")
    assert load_settings().database_url is None


def test_a_misspelt_variable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGAGG_HTTP_LISTN", "x")
    monkeypatch.setenv("LOGAGG_URL", "http://127.0.0.1:8000")
    assert unknown_variables() == ["LOGAGG_HTTP_LISTN"]


@pytest.mark.parametrize("text", ["50ms", "10s", "15m", "1h", "7d", "1500ms"])
def test_a_duration_is_written_as_it_is_read(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize("text", ["", "-1s", "1y", "soon", "999999999999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|too long"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["8000", "host", "host:", "host:65536", "host:-1", "host:²"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        parse_address(text)


def test_how_long_a_service_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "logagg.toml"
    file.write_text('[retention_for]\n"service=a b" = "3d"\n"environment=" = "2w"')
    kept = load_settings(file).retention_for
    assert list(kept.items()) == [("service=a b", timedelta(days=3)), ("environment=", timedelta(days=14))]
    (shown,) = [each.value for each in effective(load_settings(file), file) if each.name == "retention_for"]
    monkeypatch.setenv("LOGAGG_RETENTION_FOR", shown)  # which is what it takes
    assert load_settings(None).retention_for == kept
    for text, problem in (
        ('{"host=a": "3d"}', "'host=a': expected service=NAME or environment=NAME"),
        ('{"service=a": "soon"}', "'soon' is no duration"),
        ('{"service=a": "0"}', "service=a: 0 is no time to keep records for"),
        ('["service=a"]', r"\['service=a'\] is no table"),
        ("service=a", "no JSON object"),
    ):
        monkeypatch.setenv("LOGAGG_RETENTION_FOR", text)
        with pytest.raises(SettingsError, match=f"LOGAGG_RETENTION_FOR: retention_for: {problem}"):
            load_settings(None)
