"""Dated result files under `benchmarks/results`, with the command and the machine they come from."""

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine(*packages: str) -> str:
    """Return what a result depends on: the day, the machine, and versions."""
    versions = ", ".join(f"{package} {version(package)}" for package in ("rlstack", "torch", *packages))
    return f"{datetime.date.today()}, {os.cpu_count()} cores ({platform.machine()}), {versions}"


def write(name: str, title: str, command: str, note: str, table: list[str], *packages: str) -> Path:
    """Write a Markdown file with a table and return where it is."""
    path = Path(__file__).parent / "results" / f"{name}-{datetime.date.today()}.md"
    lines = [f"# {title}", "", f"`{command}`, {machine(*packages)}.", note, "", *table, ""]
    path.write_text("\n".join(lines))
    return path
