"""Checks of the metrics with Prometheus itself: promtool on the page and on the alerts, and a server that scrapes both
addresses and evaluates every expression of `examples/alerts.yaml` and `examples/grafana.json`."""

import json
import re
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from check_rest import await_port, free_port, served
from session import check, need

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CATALOG = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"

CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{alerts}]
scrape_configs:
  - job_name: patgate
    static_configs: [{{targets: ["127.0.0.1:{metrics}"]}}]
  - job_name: with-token
    authorization: {{credentials_file: {token}}}
    static_configs: [{{targets: ["{http}"]}}]
"""

# Series that fire an alert, and its expected labels and annotations are not compared: that it fires is.
FIRING = {
    "PatgateRootGone": 'patgate_root_available{instance="a"}: "0x30"',
    "PatgateFileSystemGone": 'patgate_tree_outages{instance="a"}: "1x30"; patgate_root_available{instance="a"}: "1x30"',
    "PatgateCertificateExpires": 'patgate_certificate_expiry_timestamp_seconds{instance="a"}: "86400x120"',
    "PatgateStoreUnhealthy": 'patgate_store_healthy{instance="a"}: "0x30"',
    "PatgateReserveUsed": 'patgate_ballast_bytes{instance="a"}: "1x30"; patgate_ballast_target_bytes{instance="a"}: "16x30"',
    "PatgateArgon2QueueFull":
        'patgate_argon2_queue_jobs{instance="a"}: "250x30"; patgate_argon2_queue_max_jobs{instance="a"}: "256x30"',
    "PatgateManyRefusedLogins":
        'patgate_authentications_total{instance="a",protocol="sftp",outcome="wrong_secret"}: "0+120x60"',
    "PatgateStoreSlow":
        'patgate_store_write_duration_seconds_bucket{instance="a",le="0.5"}: "0+1x60"; '
        'patgate_store_write_duration_seconds_bucket{instance="a",le="5"}: "0+9x60"; '
        'patgate_store_write_duration_seconds_bucket{instance="a",le="+Inf"}: "0+10x60"',
    "PatgateConnectionsExhausted":
        'patgate_connections{instance="a",listener="http",state="authenticated"}: "95x30"; '
        'patgate_connections_max{instance="a",listener="http",state="open"}: "100x30"',
    "PatgateQuotaNearlyUsed":
        'patgate_quota_used{instance="a",quota="tokens"}: "95x60"; patgate_quota_max{instance="a",quota="tokens"}: "100x60"',
}


def read(url):
    """The answer to a GET, as text."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read().decode()


@contextmanager
def scraping(s, port, config):
    """A Prometheus server, for the length of a block."""
    flags = (f"--config.file={config}", f"--storage.tsdb.path={s.local / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}")
    process = s.start("prometheus", *flags, stderr=(s.local / "prometheus.log").open("w"))
    try:
        await_port(s, port, "prometheus")
        await_ready(s, f"http://127.0.0.1:{port}/-/ready")
        yield f"http://127.0.0.1:{port}/api/v1/"
    finally:
        process.terminate()
        process.wait(30)


def await_ready(s, url):
    """Prometheus listens before it answers."""
    while True:
        try:
            return read(url)
        except OSError as error:
            need(time.monotonic() < s.deadline - 20, f"prometheus does not get ready: {error}")
            time.sleep(0.2)


def await_scrapes(s, api):
    """Waits until both addresses were scraped and every rule was evaluated."""
    while True:
        targets = json.loads(read(api + "targets"))["data"]["activeTargets"]
        rules = [rule for group in json.loads(read(api + "rules"))["data"]["groups"] for rule in group["rules"]]
        if len(targets) == 2 and rules and all(one["health"] in ("up", "ok") for one in targets + rules):
            return rules
        need(time.monotonic() < s.deadline - 20, f"not scraped: {[one['lastError'] for one in targets]}, "
             f"{[rule for rule in rules if rule['health'] != 'ok']}")
        time.sleep(0.5)


def query(api, expression):
    """The samples that an expression has now."""
    answer = json.loads(read(api + "query?" + urllib.parse.urlencode({"query": expression})))
    need(answer["status"] == "success", f"{expression}: {answer}")
    return answer["data"]["result"]


@check("prometheus", "promtool", "curl")
def token_metrics_prometheus(s):
    """Prometheus scrapes both addresses; promtool finds no fault; all expressions of alerts and dashboard have metrics."""
    metrics, port = free_port(), free_port()
    with served(s, "--metrics", f"127.0.0.1:{metrics}") as (url, gateway):
        gateway("admin", "user", "create", "alice")
        token = gateway("admin", "user", "token", "-u", "alice", "-e", "1h", "-q")
        gateway("admin", "user", "create", "prometheus", "--no-home", "--role", "metrics.read")
        reader = gateway("admin", "user", "token", "-u", "prometheus", "-e", "1h", "--role", "metrics.read", "-q")
        (s.local / "token").write_text(reader)
        for method in ("PUT", "GET", "PROPFIND", "DELETE", "BREW"):
            s.run("curl", "-sS", "-o", "/dev/null", "-u", f"alice:{token}", "-X", method, "--data-binary", "x", f"{url}/dav/alice/a")
        s.run("curl", "-sS", "-o", "/dev/null", "-u", "alice:wrong", f"{url}/dav/alice/a")
        page = read(f"http://127.0.0.1:{metrics}/metrics")
        s.run("promtool", "check", "metrics", text=page)

        config = s.local / "prometheus.yml"
        config.write_text(CONFIG.format(alerts=EXAMPLES / "alerts.yaml", metrics=metrics, token=s.local / "token",
                                        http=url.removeprefix("http://")))
        s.run("promtool", "check", "config", config)
        with scraping(s, port, config) as api:
            rules = await_scrapes(s, api)
            firing = [rule["name"] for rule in rules if rule["state"] == "firing"]
            need(not firing, f"a healthy server fires {firing}")
            puts = query(api, 'patgate_requests_total{job="patgate",protocol="webdav",operation="PUT",status="2xx"}')
            need([sample["value"][1] for sample in puts] == ["1"], f"PUT is counted {puts}")
            known = set(re.findall(r"^\| `(\w+)`", CATALOG.read_text(), re.M))
            expressions = dashboard() + [rule["query"] for rule in rules]
            for expression in expressions:
                query(api, expression)
                names = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\b(?:patgate|process)_\w+", expression)}
                need(names <= known, f"{expression} names {sorted(names - known)}, which is no metric")
        return f"{len(rules)} alerts, {len(expressions)} expressions"


def dashboard():
    """The expressions of the dashboard, with its variables filled in."""
    panels = json.loads((EXAMPLES / "grafana.json").read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel["targets"]]
    return [text.replace("$instance", ".*").replace("$__rate_interval", "1m") for text in texts]


@check("promtool")
def token_metrics_alerts(s):
    """Each alert fires on the series that it is meant for."""
    lines = [f"rule_files: [{EXAMPLES / 'alerts.yaml'}]", "evaluation_interval: 1m", "tests:"]
    for alert, series in FIRING.items():
        lines += ["  - interval: 1m", "    input_series:"]
        for one in series.split("; "):
            name, values = one.split(": ")
            lines += [f"      - series: '{name}'", f"        values: {values}"]
        # The count of its ALERTS series, so that labels and texts need not be written twice.
        lines += ["    promql_expr_test:", f"      - expr: count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}})",
                  "        eval_time: " + ("61m" if alert == "PatgateCertificateExpires" else "29m"),
                  "        exp_samples: [{labels: '{}', value: 1}]"]
    tests = s.local / "tests.yml"
    tests.write_text("\n".join(lines) + "\n")
    s.run("promtool", "test", "rules", tests)
    return f"{len(FIRING)} alerts"
