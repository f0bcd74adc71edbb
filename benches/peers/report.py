"""What the figures come to: medians, ratios, and the tables that show them."""

import math
import statistics


def summary(result):
    if "missing" in result:
        return {"missing": result["missing"]}
    if len(result["rounds"]) < 1 or "error" in result:
        return {"error": result.get("error", "no round"), "rounds": result["rounds"]}
    median, more = statistics.median, result["more"]
    out = {"median": median(result["rounds"]), "min": min(result["rounds"]), "max": max(result["rounds"]),
           "rounds": result["rounds"],
           **{key: median(m[key] for m in more) for key in more[0]}}
    if result["cpu_s"]:
        out.update(cpu_s=median(result["cpu_s"]), peak_rss_mib=max(result["rss_mib"]),
                   cpu_per_unit=median(s / m["work"] for s, m in zip(result["cpu_s"], more)))
    return out


def ratios(one, results, first):
    """How the first server stands to each other: above 1 it is the better one, whatever the unit."""
    if "median" not in results.get(first, {}):
        return {}
    out = {}
    for name, other in results.items():
        if name != first and "median" in other:
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
    digits = 0 if value >= 100 or not value else 1 if value >= 10 else 2 if value >= .1 else 4
    return f"{value:,.{digits}f}"


def table(report, group):
    """The readable table of a group."""
    servers, gateway = report["servers"][group], report["gateway"]
    chosen = [c for c in report["cases"] if c["group"] == group]
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
            cells.append(noisy + number(r["median"]) if "median" in r else "-" if "missing" in r else "error")
        if first:
            cells += [c["best_peer"] or "-", number(c["ratios"].get(c["best_peer"])),
                      *[number(c["ratios"].get(n)) for n in servers if n != first]]
        else:
            cells += [c["best_peer"] or "-", *[number(c["against_best"].get(n)) for n in servers]]
        rows.append([c["name"], c["unit"], *cells])
    lines = layout([head, *rows])
    lines.append("")
    lines += layout([["server CPU seconds", "per", *servers, "", "peak MiB:", *servers],
                     *[[c["name"], c["work_unit"], *[number(c["results"][n].get("cpu_per_unit")) for n in servers],
                        "", "", *[number(c["results"][n].get("peak_rss_mib")) for n in servers]] for c in chosen]])
    details = [[c["name"], *["{} / {} ms".format(number(c["results"][n].get("p50_ms")), number(c["results"][n].get("p99_ms")))
                             for n in servers]]
               for c in chosen if any("p50_ms" in c["results"][n] for n in servers)]
    if details:
        lines += ["", *layout([["p50 / p99", *servers], *details])]
    for title, key in (("KiB for each", "kib_each"), ("ms", "ms")):
        if more := [[c["name"], *[number(c["results"][n].get(key)) for n in servers]] for c in chosen
                    if any(key in c["results"][n] for n in servers)]:
            lines += ["", *layout([[title, *servers], *more])]
    if group == "dav":
        lines += growth_lines(report, servers)
    notes = [f"  {c['name']} {n}: {r.get('error') or r['missing']}"
             for c in chosen for n, r in c["results"].items() if "median" not in r]
    if notes:
        lines += ["", "without a figure:", *notes]
    return "\n".join(lines)


def growth_lines(report, servers):
    rows = [[f"dav-propfind {step}", *[number(exponents.get(n)) for n in servers]]
            for step, exponents in report["growth"].items() if exponents]
    return ["", *layout([["growth exponent", *servers], *rows])] if rows else []


def markdown(report, group):
    """The figures of a group, the ratio to the best peer, and what both spend, as a Markdown table."""
    servers, gateway = report["servers"][group], report["gateway"]
    rows = [["case", "unit", *servers, "best peer", f"{gateway} / best", "server CPU s per", gateway, "best peer",
             f"peak MiB: {gateway}", "best peer"]]
    for c in report["cases"]:
        if c["group"] == group:
            mine, top = c["results"].get(gateway, {}), c["results"].get(c["best_peer"], {})
            rows.append([f"`{c['name']}`", c["unit"], *[number(c["results"][n].get("median")) for n in servers],
                         c["best_peer"] or "-", number(c["ratios"].get(c["best_peer"])), c["work_unit"],
                         *[number(r.get(key)) for key in ("cpu_per_unit", "peak_rss_mib") for r in (mine, top)]])
    if len(rows) == 1:
        return ""
    rows.insert(1, ["---", "---", *["---:" for _ in servers], "---", "---:", "---", *["---:"] * 4])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def layout(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip()
            for row in rows]


def growth(cases):
    """The exponents by which the time of a listing grows from a folder to one of ten times the files."""
    found = {c["name"]: c["results"] for c in cases}
    return {f"{small} to {large}": exponents(found.get(f"dav-propfind-{small}", {}), found.get(f"dav-propfind-{large}", {}))
            for small, large in (("1k", "10k"), ("10k", "100k"))}


def exponents(small, large):
    return {n: math.log10(large[n]["median"] / small[n]["median"]) for n in small
            if "median" in small[n] and "median" in large.get(n, {})}
