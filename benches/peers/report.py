"""What the figures come to: medians, ratios, and the tables that show them."""

import math
import statistics


def summary(result):
    if len(result["rounds"]) < 1 or "error" in result:
        return {"error": result.get("error", "no round"), "rounds": result["rounds"]}
    median, more = statistics.median, result["more"]
    out = {"median": median(result["rounds"]), "min": min(result["rounds"]), "max": max(result["rounds"]),
           "rounds": result["rounds"],
           **{key: median(m[key] for m in more) for key in more[0]}}
    if result["cpu_s"]:
        out.update(cpu_s=median(result["cpu_s"]), peak_rss_mib=max(result["rss_mib"]))
    return out


def ratios(one, results, first):
    """How the first server stands to each other: above 1 it is the better one, whatever the unit."""
    if "error" in results.get(first, {"error": 1}):
        return {}
    out = {}
    for name, other in results.items():
        if name != first and "error" not in other:
            pairs = zip(results[first]["rounds"], other["rounds"])
            out[name] = statistics.median(a / b if one.higher_is_better else b / a for a, b in pairs)
    return out


def best(one, results, names):
    """The peer with the best median; lighttpd's COPY makes hard links and counts for nothing there."""
    good = {n: results[n]["median"] for n in names
            if "median" in results[n] and not (n == "lighttpd" and "-copy-" in one.name)}
    return (max if one.higher_is_better else min)(good, key=good.get) if good else None


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(report, protocol):
    """The readable table of a protocol."""
    servers, gateway = report["servers"][protocol], report["gateway"]
    chosen = [c for c in report["cases"] if c["protocol"] == protocol]
    if not chosen:
        return ""
    first = gateway if gateway in servers else None
    head = ["case", "unit", *servers, "best peer"]
    head += [f"{first}/best", *[f"{first}/{n}" for n in servers if n != first]] if first else \
            [f"{n}/best" for n in servers]
    rows = []
    for c in chosen:
        cells = []
        for name in servers:
            r = c["results"][name]
            noisy = "~" if "median" in r and r["max"] > 1.5 * r["min"] else ""
            cells.append(noisy + number(r["median"]) if "median" in r else "error")
        if first:
            cells += [c["best_peer"] or "-", number(c["ratios"].get(c["best_peer"])),
                      *[number(c["ratios"].get(n)) for n in servers if n != first]]
        else:
            cells += [c["best_peer"] or "-", *[number(c["against_best"].get(n)) for n in servers]]
        rows.append([c["name"], c["unit"], *cells])
    lines = layout([head, *rows])
    lines.append("")
    lines += layout([["case", *[f"{n} {what}" for n in servers for what in ("CPU s", "peak MiB")]],
                     *[[c["name"], *[number(c["results"][n].get(k)) for n in servers for k in ("cpu_s", "peak_rss_mib")]]
                       for c in chosen]])
    details = [[c["name"], *["{} / {} ms".format(number(c["results"][n].get("p50_ms")), number(c["results"][n].get("p99_ms")))
                             for n in servers]]
               for c in chosen if any("p50_ms" in c["results"][n] for n in servers)]
    if details:
        lines += ["", *layout([["p50 / p99", *servers], *details])]
    if growth := report["growth"]:
        if protocol == "dav":
            lines += ["", *layout([["growth exponent", *servers],
                                   ["dav-propfind 1k to 10k", *[number(growth.get(n)) for n in servers]]])]
    errors = [f"  {c['name']} {n}: {r['error']}" for c in chosen for n, r in c["results"].items() if "error" in r]
    if errors:
        lines += ["", "errors:", *errors]
    return "\n".join(lines)


def markdown(report, protocol):
    """The figures of a protocol and the ratio to the best peer, as a Markdown table."""
    servers, gateway = report["servers"][protocol], report["gateway"]
    rows = [["case", "unit", *servers, "best peer", f"{gateway} / best"]]
    for c in report["cases"]:
        if c["protocol"] == protocol:
            rows.append([f"`{c['name']}`", c["unit"], *[number(c["results"][n].get("median")) for n in servers],
                         c["best_peer"] or "-", number(c["ratios"].get(c["best_peer"]))])
    if len(rows) == 1:
        return ""
    rows.insert(1, ["---", "---", *["---:" for _ in servers], "---", "---:"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def layout(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip()
            for row in rows]


def growth(cases):
    found = {c["name"]: c["results"] for c in cases}
    small, large = found.get("dav-propfind-1k", {}), found.get("dav-propfind-10k", {})
    return {n: math.log10(large[n]["median"] / small[n]["median"]) for n in small
            if "median" in small[n] and "median" in large.get(n, {})}
