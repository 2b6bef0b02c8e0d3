#!/usr/bin/env python3
"""Judges what cargo-deny does not: the local copy of the advisories, the dates of exceptions, and a report on planted holes.

Called by .ci/supply-chain. Says what is wrong and how to mend it, and ends with 1.
"""

import argparse
import datetime
import json
import re
import sys
import tomllib
from pathlib import Path

UNTIL = re.compile(r"\buntil (\d{4}-\d{2}-\d{2})\b")


def refuse(findings):
    for finding in findings:
        print(f"Error: {finding}", file=sys.stderr)
    sys.exit(1 if findings else 0)


def locked_names(lock):
    """Names of the crates of a lock file that come from elsewhere."""
    packages = tomllib.loads(lock.read_text())["package"]
    return {package["name"] for package in packages if "source" in package}


def front_matter(advisory):
    text = advisory.read_text()
    return tomllib.loads(text.removeprefix("```toml\n").split("```", 1)[0])["advisory"]


def copy(options):
    """The copy covers every crate of the locks and agrees with itself. Its age is a warning: the calendar alone fails nothing."""
    state = tomllib.loads((options.copy / "copy.toml").read_text())
    looked_up = set(state["looked_up"])
    findings = []
    for lock in options.locks:
        for name in sorted(locked_names(lock) - looked_up):
            findings.append(
                f"{lock}: {name} has not been looked up in the advisory database: "
                f"{options.copy}/README.md says how to do it"
            )
    newest = max(
        (front_matter(file) for file in options.copy.glob("crates/*/*.md")),
        key=lambda advisory: (advisory["date"], advisory["id"]),
    )
    said = state["newest"]
    if (newest["id"], newest["date"]) != (said["id"], said["date"].isoformat()):
        findings.append(
            f"{options.copy}/copy.toml names {said['id']} of {said['date']} as the newest, "
            f"but there is {newest['id']} of {newest['date']}"
        )
    for file in sorted(options.copy.glob("crates/*/*.md")):
        advisory = front_matter(file)
        if (advisory["package"], advisory["id"]) != (file.parent.name, file.stem):
            findings.append(f"{file} is of {advisory['package']} {advisory['id']}: move it")
        if advisory["package"] not in looked_up:
            findings.append(f"{file} is of a crate that is not in looked_up")
    if findings:
        refuse(findings)
    age = (options.today - state["copied"]).days
    print(
        f"advisories: copy of {state['copied']} ({age} days old), read until {state['read_until']}, "
        f"newest {said['id']} of {said['date']}; later ones are not covered"
    )
    if age > state["warn_after_days"]:
        bar = "!" * 100
        print(
            f"{bar}\nWARNING: the copy of the advisories is {age} days old, more than {state['warn_after_days']}. "
            f"What was published since is not checked.\nWARNING: renew it, as {options.copy}/README.md says.\n{bar}"
        )


def exceptions(options):
    """Every exception of deny.toml says why, and until when, and that day has not passed."""
    policy = tomllib.loads(options.policy.read_text())
    bans = policy.get("bans", {})
    entries = [
        *policy.get("advisories", {}).get("ignore", []),
        *bans.get("skip", []),
        *bans.get("skip-tree", []),
    ]
    findings = []
    for entry in entries:
        entry = {"id": entry} if isinstance(entry, str) else entry
        name = entry.get("id") or entry.get("crate") or entry.get("name")
        until = UNTIL.search(entry.get("reason", ""))
        if until is None:
            findings.append(f'{options.policy}: {name} needs a reason with "until YYYY-MM-DD"')
        elif datetime.date.fromisoformat(until[1]) < options.today:
            findings.append(
                f"{options.policy}: the exception for {name} ended on {until[1]}: remove it, or judge it again"
            )
    refuse(findings)


def planted(options):
    """The report of cargo-deny on standard input has exactly one error, and that is the planted hole."""
    errors = []
    for line in sys.stdin:
        fields = json.loads(line).get("fields", {})
        if fields.get("severity") == "error" or fields.get("level") == "ERROR":
            advisory = fields.get("advisory") or {}
            errors.append((fields.get("code"), advisory.get("id") or fields.get("message")))
    if errors != [("vulnerability", options.id)]:
        refuse([f"the planted hole {options.id} should be the one error, but cargo-deny reported {errors}"])
    print(f"planted hole {options.id}: found, and nothing else")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--today", type=datetime.date.fromisoformat, default=datetime.datetime.now(datetime.UTC).date()
    )
    commands = parser.add_subparsers(required=True)
    of_copy = commands.add_parser("copy")
    of_copy.add_argument("copy", type=Path)
    of_copy.add_argument("locks", type=Path, nargs="+")
    of_copy.set_defaults(run=copy)
    of_exceptions = commands.add_parser("exceptions")
    of_exceptions.add_argument("policy", type=Path)
    of_exceptions.set_defaults(run=exceptions)
    of_planted = commands.add_parser("planted")
    of_planted.add_argument("id")
    of_planted.set_defaults(run=planted)
    options = parser.parse_args()
    options.run(options)


main()
