"""Alerts name where they go by an environment variable, and never fail what sends them."""

import logging

import pytest

import configs
from pipeline.alerts import AlertsConfig, send


@pytest.mark.parametrize(
    "wrong", [{"url_from": "https://chat.example/T0"}, {"url_from": "A", "command": ["b"]}]
)
def test_a_secret_in_the_config_or_two_ways_are_refused(wrong):
    with pytest.raises(configs.ConfigError):
        configs.check(AlertsConfig, wrong, where="here")


@pytest.mark.parametrize(
    "value", [None, "file:///etc/passwd", "http://127.0.0.1:1/token", "https://me:token@host/x"]
)
def test_what_cannot_be_sent_is_logged_without_the_address(value, monkeypatch, caplog):
    monkeypatch.delenv("ALERTS", raising=False)
    if value:
        monkeypatch.setenv("ALERTS", value)
    with caplog.at_level(logging.ERROR):
        assert not send(AlertsConfig(url_from="ALERTS"), {"text": "t"})
    assert "the alert was not sent" in caplog.text
    assert "token" not in caplog.text
    assert "passwd" not in caplog.text


def test_nobody_is_told_where_nobody_is_named():
    assert not send(AlertsConfig(), {"text": "t"})


def test_a_command_that_fails_says_why(caplog):
    config = AlertsConfig(command=("bash", "-c", "echo no mail >&2; exit 3"))
    assert not send(config, {"text": "t"})
    assert "exited with 3: no mail" in caplog.text
    assert send(AlertsConfig(command=("cat",)), {"text": "t"})
